import { z } from "zod";
import { PROBLEMS } from "./errors.ts";

export const PROBLEM_MEDIA_TYPE = "application/problem+json";

const FieldErrorSchema = z
  .object({
    pointer: z.string().meta({
      description: "RFC 6901 pointer into the JSON body, or `#/query/…`, `#/path/…`, `#/headers/…`.",
    }),
    code: z.string(),
    message: z.string(),
  })
  .meta({ id: "FieldError" });

/** RFC 9457, with this service's extension members. */
export const Problem = z
  .object({
    type: z.string().meta({ description: "An identifier of the kind of problem: `urn:modelpress:problem:<code>`." }),
    title: z.string(),
    status: z.int(),
    detail: z.string().meta({ description: "What went wrong this time, for a person." }),
    code: z.string().meta({
      description: `Stable and machine-readable; more may be added. Now: ${Object.keys(PROBLEMS)
        .map((code) => `\`${code}\``)
        .join(", ")}.`,
    }),
    request_id: z.string().meta({ description: "Name it when you ask for help: the log has it too." }),
    subject: z.string().optional().meta({ description: "The node, tensor or file that is at fault." }),
    errors: z.array(FieldErrorSchema).optional().meta({ description: "Every field that is wrong." }),
  })
  .meta({ id: "Problem" });
