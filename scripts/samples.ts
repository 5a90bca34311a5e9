import { writeFileSync } from "node:fs";
import { mnistFile, NETWORKS } from "../test/support/mnist.ts";

/** Writes a small model and data to try everything with, handwritten digits of MNIST, into the current folder. */

const FILES = {
  "digits.onnx": () => NETWORKS.cnn([8, 16], 32),
  "digits-train.npz": () => mnistFile("training", 3000),
  "digits-test.npz": () => mnistFile("test", 500),
};

for (const [name, make] of Object.entries(FILES)) {
  const bytes = make();
  writeFileSync(name, bytes);
  console.log(`${name}: ${(bytes.length / 1e6).toFixed(2)} MB`);
}
