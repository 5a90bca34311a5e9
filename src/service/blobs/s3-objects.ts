import type { Readable } from "node:stream";
import { GetObjectCommand } from "@aws-sdk/client-s3";
import { ObjectError, type Objects, type S3Endpoint } from "./objects.ts";
import { answerOf, createS3Client, unreachableReason, uploadObject } from "./s3-client.ts";

const LIMITS = { connectionTimeout: 5_000, socketTimeout: 30_000 };

/** Codes of S3 that are no fault of the request although their status is one of those that are. */
const PASSING = ["RequestTimeout", "RequestTimeTooSkewed", "OperationAborted"];

/** Objects of any bucket: whoever calls this has looked at the operator's list. */
export function createS3Objects(endpoint: S3Endpoint): Objects {
  const client = createS3Client(endpoint, LIMITS);
  return {
    async get({ bucket, key }, signal) {
      const command = new GetObjectCommand({ Bucket: bucket, Key: key });
      try {
        const { Body } = await client.send(command, { abortSignal: signal });
        return Body as Readable;
      } catch (error) {
        throw signal.aborted ? signal.reason : asObjectError(error);
      }
    },
    async put({ bucket, key }, bytes, sizeBytes, signal) {
      try {
        await uploadObject(client, { Bucket: bucket, Key: key }, bytes, { sizeBytes, signal });
      } catch (error) {
        throw signal.aborted ? signal.reason : asObjectError(error);
      }
    },
  };
}

/** What S3 said is its code alone: its sentences name the operator's account and role. */
function asObjectError(error: unknown): unknown {
  const answer = answerOf(error);
  if (answer !== undefined) {
    const { status, code } = answer;
    const mayPass = status >= 500 || status === 408 || status === 429 || (code !== undefined && PASSING.includes(code));
    return new ObjectError(["S3 answered", status, code].filter(Boolean).join(" "), mayPass, error);
  }
  const unreachable = unreachableReason(error);
  if (unreachable !== undefined) return new ObjectError(`S3 could not be reached (${unreachable})`, true, error);
  if (error instanceof Error && error.name === "CredentialsProviderError") {
    return new ObjectError("this service has no credentials for S3", true, error);
  }
  return error;
}
