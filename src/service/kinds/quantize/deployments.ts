/**
 * Runtimes other than onnxruntime on a CPU that models are made for: what each wants of a model, and where that stands written. Builders, the check of
 * results, refusals and docs/targets.md read these records.
 */
import type { ArtifactRules, Claim, SlowDepthwise } from "../../../core/contract.ts";
import type { QuantizeParams } from "./params.ts";

export type DeploymentName = "web" | "openvino" | "tensorrt" | "qnn";

type Method = QuantizeParams["method"];
type ParamsOf<M extends Method> = Extract<QuantizeParams, { method: M }>;

/** A method, or a form of it, that a runtime cannot take. */
export interface MethodRefusal extends Claim {
  readonly method: Method;
  /** The parameter that is at fault. */
  readonly field: string;
  readonly applies: (params: QuantizeParams) => boolean;
  /** What to do. */
  readonly instead: string;
}

export interface Deployment {
  readonly runtime: string;
  readonly description: string;
  readonly rules: ArtifactRules;
  readonly refuses: readonly MethodRefusal[];
  /** What it computes no faster in 8 bits than in float, as was measured there: where that is wanted it stays in float. */
  readonly slower?: { readonly depthwise: SlowDepthwise };
  /** The runtime that results are measured in here, if it can be on this machine. */
  readonly measuredIn?: "onnxruntime-web";
  /** Whether models are loaded over a network. */
  readonly isDownloaded: boolean;
}

function refuse<M extends Method>(
  method: M,
  field: Extract<keyof ParamsOf<M>, string> | "method",
  claim: Claim & { readonly instead: string },
  applies: (params: ParamsOf<M>) => boolean = () => true,
): MethodRefusal {
  // The method settles what the parameters are.
  return { ...claim, method, field, applies: (params) => params.method === method && applies(params as ParamsOf<M>) };
}

const WEB = "https://github.com/microsoft/onnxruntime/blob/main/js/web/README.md";
const WEB_OPSET = "https://onnxruntime.ai/docs/reference/compatibility.html";
const OPENVINO_LPT = "https://docs.openvino.ai/latest/openvino_docs_OV_UG_lpt.html";
const OPENVINO_FRONTEND =
  "https://github.com/openvinotoolkit/openvino/tree/master/src/frontends/onnx/frontend/src/op/com.microsoft";
const OPENVINO_CONVOLUTION =
  "https://docs.openvino.ai/2024/documentation/openvino-extensibility/openvino-plugin-library/advanced-guides/low-precision-transformations/step3-main/convolution/convolution.html";
const OPENVINO_INT8 =
  "https://docs.openvino.ai/2024/documentation/openvino-ir-format/intermediate-representation-int8-inference.html";
const TENSORRT_TYPES =
  "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html";
const TENSORRT_EXPLICIT =
  "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html";
const TENSORRT_OPSET = "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html";
const TENSORRT_OPERATORS = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md";
const QNN = "https://onnxruntime.ai/docs/execution-providers/QNN-ExecutionProvider.html";

const INTEGER_OPERATORS = ["ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"];

/** Quantization-aware training writes its model in the pattern that it was trained in. */
function refuseTrained(source: string): MethodRefusal {
  return refuse("qat", "method", {
    says: "Training with rounding learns for the pairs of Q/DQ that onnxruntime fuses, which this runtime wants otherwise.",
    source,
    instead: "Use static, or train for target auto and deploy with onnxruntime.",
  });
}

export const DEPLOYMENTS: Readonly<Record<DeploymentName, Deployment>> = {
  web: {
    runtime: "onnxruntime-web",
    description: "Browsers: onnxruntime-web with WebAssembly. Measured there, in a process of its own.",
    rules: {
      domains: {
        is: ["ai.onnx.ml", "com.microsoft"],
        says: "The WebAssembly backend is onnxruntime's CPU engine with all of its operators, those of com.microsoft included.",
        source: WEB,
      },
      opset: {
        is: { min: 7, max: 26 },
        says: "Operator sets from 7 on; the newest is that of the release of onnxruntime.",
        source: WEB_OPSET,
      },
      activations: {
        is: { dtype: "uint8", symmetric: false },
        says: "Quantized models run on the kernels of onnxruntime's CPU engine: unsigned activations, with a zero point.",
        source: WEB,
      },
      weights: {
        is: { dtypes: ["int8", "uint8", "int4", "uint4", "int2", "uint2"], symmetric: false },
        says: "All that onnxruntime's DequantizeLinear reads.",
        source: WEB,
      },
    },
    refuses: [],
    measuredIn: "onnxruntime-web",
    isDownloaded: true,
  },
  openvino: {
    runtime: "OpenVINO",
    description:
      "OpenVINO on CPUs: pairs stand on the inputs of layers, as its low precision transformations take them.",
    rules: {
      domains: {
        is: ["com.microsoft"],
        says: "Its ONNX frontend reads, besides ai.onnx, operators of com.microsoft: DynamicQuantizeMatMul, MatMulNBits and GatherBlockQuantized of them.",
        source: OPENVINO_FRONTEND,
      },
      activations: {
        is: { dtype: "uint8", symmetric: false },
        says: "Activations of layers are unsigned 8-bit integers, with one scale for a tensor.",
        source: OPENVINO_CONVOLUTION,
      },
      weights: {
        is: { dtypes: ["int8"], symmetric: true },
        says: "Weights are signed 8-bit integers with a DequantizeLinear, and a scale for each output channel.",
        source: OPENVINO_LPT,
      },
      biases: {
        is: "float32",
        says: "What is dequantized behind a layer is its product: its bias is added after that, in float.",
        source: OPENVINO_CONVOLUTION,
      },
      pairs: {
        is: "inputs",
        says: "A layer computes in 8 bits when both its data and its weights come through a quantization; a pair on an output that no layer reads so is computed for nothing.",
        source: OPENVINO_INT8,
      },
      quantized: {
        is: ["Conv", "MatMul", "Gemm", "Add"],
        says: "Pairs stand on the inputs of layers and of sums of two layers; elsewhere they are run as operators of their own.",
        source: OPENVINO_LPT,
      },
    },
    refuses: [refuseTrained(OPENVINO_LPT)],
    // Measured there, AVX-512 with VNNI: docs/guides/benchmarks.md, "OpenVINO".
    slower: {
      depthwise: {
        below: 2 ** 18,
        reason: "OpenVINO computes depthwise convolutions of fewer than 262,144 elements no faster in 8 bits.",
      },
    },
    isDownloaded: false,
  },
  tensorrt: {
    runtime: "TensorRT",
    description: "NVIDIA GPUs with TensorRT: signed, symmetric, pairs on the inputs of layers. Checked, not measured.",
    rules: {
      domains: { is: [], says: "The parser reads operators of ai.onnx.", source: TENSORRT_OPERATORS },
      opset: { is: { min: 9, max: 25 }, says: "Operator sets 9 to 25 (TensorRT 11).", source: TENSORRT_OPSET },
      refused: {
        is: INTEGER_OPERATORS,
        says: "There is no ConvInteger, MatMulInteger, DynamicQuantizeLinear, QLinearConv or QLinearMatMul.",
        source: TENSORRT_OPERATORS,
      },
      activations: {
        is: { dtype: "int8", symmetric: true },
        says: "Values are signed 8-bit integers around 0: every zero point must be 0.",
        source: TENSORRT_TYPES,
      },
      weights: {
        is: { dtypes: ["int8", "int4"], symmetric: true },
        says: "Weights are signed, in 8 or (weights alone) 4 bits, and their zero points 0; stored weights have a DequantizeLinear in front of the layer.",
        source: TENSORRT_EXPLICIT,
      },
      biases: {
        is: "float32",
        says: "DequantizeLinear reads 8-bit (and 4-bit) integers, not the 32-bit integers of a quantized bias.",
        source: TENSORRT_OPERATORS,
      },
      pairs: {
        is: "inputs",
        says: "Quantize the inputs of layers with weights; a layer whose output carries no pair may give out any type, which leaves the fusions to the builder.",
        source: TENSORRT_EXPLICIT,
      },
      quantized: {
        is: ["Conv", "MatMul", "Gemm"],
        says: "Layers with weights: convolutions and matrix products.",
        source: TENSORRT_EXPLICIT,
      },
    },
    refuses: [
      refuse("dynamic", "method", {
        says: "Dynamic int8 needs ranges while the model runs: there is no DynamicQuantizeLinear or MatMulInteger.",
        source: TENSORRT_OPERATORS,
        instead: "Use static with samples of your data, or float16.",
      }),
      refuse(
        "weight_only",
        "format",
        {
          says: "MatMulNBits is an operator of onnxruntime.",
          source: TENSORRT_OPERATORS,
          instead: "Set format to qdq, with bits 4 and symmetric true.",
        },
        ({ format }) => format === "matmulnbits",
      ),
      refuse(
        "weight_only",
        "bits",
        {
          says: "Weights alone are quantized to 4 bits.",
          source: TENSORRT_TYPES,
          instead: "Set bits to 4, or use static for 8.",
        },
        ({ format, bits }) => format === "qdq" && bits !== 4,
      ),
      refuse(
        "weight_only",
        "symmetric",
        {
          says: "Zero points must be 0.",
          source: TENSORRT_OPERATORS,
          instead: "Set symmetric to true.",
        },
        ({ symmetric, format, bits }) => format === "qdq" && bits === 4 && !symmetric,
      ),
      refuseTrained(TENSORRT_EXPLICIT),
    ],
    isDownloaded: false,
  },
  qnn: {
    runtime: "QNN",
    description: "Qualcomm NPUs with onnxruntime's QNN provider: every layer between pairs. Checked, not measured.",
    rules: {
      domains: {
        is: [],
        says: "Of com.microsoft there are Gelu and the 16-bit QuantizeLinear and DequantizeLinear alone.",
        source: QNN,
      },
      refused: {
        is: [...INTEGER_OPERATORS, "Loop", "If", "Scan", "LSTM", "GRU", "RNN"],
        says: "A subset of ai.onnx: no Loop, If or recurrent layers, and no integer operators but Q/DQ.",
        source: QNN,
      },
      activations: {
        is: { dtype: "uint8", symmetric: false },
        says: "Operators typically take unsigned 8-bit (or 16-bit) integers.",
        source: QNN,
      },
      weights: {
        is: { dtypes: ["int8", "uint8"], symmetric: true },
        says: "Weights in 8 bits; those with a scale for each channel are signed, with zero points 0.",
        source:
          "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/python/tools/quantization/execution_providers/qnn/quant_config.py",
      },
      biases: {
        is: "int32",
        says: "The bias of a quantized layer is a 32-bit integer with a DequantizeLinear.",
        source:
          "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/python/tools/quantization/execution_providers/qnn/quant_config.py",
      },
      pairs: {
        is: "around",
        says: "The NPU computes on quantized values: a node runs there when its inputs and its outputs carry pairs.",
        source: QNN,
      },
      fixedShapes: {
        is: true,
        says: "Models with dynamic shapes are not supported: all sizes of the inputs must be fixed.",
        source: QNN,
      },
    },
    refuses: [
      refuse("dynamic", "method", {
        says: "The NPU takes quantized values whose ranges are known; there is no DynamicQuantizeLinear.",
        source: QNN,
        instead: "Use static with samples of your data.",
      }),
      refuse("weight_only", "method", {
        says: "The NPU computes on quantized activations: weights alone are not enough.",
        source: QNN,
        instead: "Use static with samples of your data.",
      }),
      refuseTrained(QNN),
    ],
    isDownloaded: false,
  },
};
