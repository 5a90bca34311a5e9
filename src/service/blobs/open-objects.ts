import type { Objects, S3Endpoint } from "./objects.ts";

/** The objects of a store. It is connected to when the first one is asked for. */
export function openObjects(endpoint: S3Endpoint): Objects {
  // Amazon's client is large, and most services have no use for it.
  let opened: Promise<Objects> | undefined;
  const open = () => {
    opened ??= import("./s3-objects.ts").then(({ createS3Objects }) => createS3Objects(endpoint));
    return opened;
  };
  return {
    get: async (...args) => (await open()).get(...args),
    put: async (...args) => (await open()).put(...args),
  };
}
