/** What files are called when they are saved: `model.onnx` tells nobody, in a folder of downloads, whose model it is and what was done to it. */

/** What file systems and archives do not take in a name. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it replaces
const UNFIT = /[/\\:*?"<>|\u0000-\u001f\u007f]/g;
/** Of the name itself: with what is added to it, a file's name is at most 255 bytes. */
const MAX_BYTES = 180;

/** The name of a model or dataset as part of a file's name. */
function plain(name: string): string {
  let fit = name.replace(UNFIT, "-").replace(/^\.+/, "-");
  while (Buffer.byteLength(fit) > MAX_BYTES) fit = Array.from(fit).slice(0, -1).join("");
  return fit;
}

/** A model is saved under its name; with its external data as an archive. */
export function modelFileName(name: string, files: number): string {
  const fit = plain(name.replace(/\.onnx$/i, ""));
  return files === 1 ? `${fit}.onnx` : `${fit}.tar`;
}

/**
 * An artifact is saved under the name of the model that its job has made, which says from what and how. External data keep their name: the
 * model finds them by it.
 */
export function artifactFileName(artifact: string, modelName: string | undefined): string {
  if (modelName === undefined || artifact.endsWith(".data")) return artifact;
  const fit = plain(modelName.replace(/\.onnx$/i, ""));
  return artifact === "model.onnx" ? `${fit}.onnx` : `${fit} ${artifact}`;
}
