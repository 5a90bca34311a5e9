import { writeFileSync } from "node:fs";
import { mnistFile, NETWORKS } from "../test/support/mnist.ts";

/** Writes a small model and data to try everything with, handwritten digits of MNIST, into the current folder. */

const FILES = {
  "digits.onnx": () => NETWORKS.cnn([16, 32], 64),
  "digits-train.npz": () => mnistFile("training", 4000),
  "digits-test.npz": () => mnistFile("test", 1000),
};

for (const [name, make] of Object.entries(FILES)) {
  const bytes = make();
  writeFileSync(name, bytes);
  console.log(`${name}: ${(bytes.length / 1e6).toFixed(2)} MB`);
}
