/**
 * A convolution and both of its gradients, by their definition and with fewer products (`core/train/fewer-products.ts`), in turns: milliseconds of
 * processor time with one thread, of the clock with more.
 *
 *   node bench/train-convolutions.ts [names] [rounds] [threads]
 *
 * Run it with MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296, as job children are. Every result is reduced to its largest
 * element, so that copying it out is not measured.
 */
import { buildGradients } from "../src/core/autodiff/gradient.ts";
import { GraphBuilder, int, ints } from "../src/core/onnx/graph-builder.ts";
import { Model, type Value } from "../src/core/onnx/ir.ts";
import { modelToBytes } from "../src/core/onnx/save.ts";
import { elementCount, type Tensor, tensorOf } from "../src/core/onnx/tensor.ts";
import { Random } from "../src/core/random.ts";
import { openSession, type Session } from "../src/core/runtime/session.ts";
import { blockConvolutions, blockOnThisMachine } from "../src/core/train/blocked-convolutions.ts";
import { useFewerProducts } from "../src/core/train/fewer-products.ts";

interface Layer {
  readonly n: number;
  readonly c: number;
  readonly m: number;
  readonly size: number;
  readonly stride?: number;
}

/** Windows of 3 x 3, padded by 1: the convolutions of ResNet-18 at 64 x 64 and of the CNN of `train-nets.ts`. */
const LAYERS: Readonly<Record<string, Layer>> = {
  "resnet-1": { n: 32, c: 64, m: 64, size: 64 },
  "resnet-1-2": { n: 32, c: 64, m: 128, size: 64, stride: 2 },
  "resnet-2": { n: 32, c: 128, m: 128, size: 32 },
  "resnet-2-3": { n: 32, c: 128, m: 256, size: 32, stride: 2 },
  "resnet-3": { n: 32, c: 256, m: 256, size: 16 },
  "resnet-3-4": { n: 32, c: 256, m: 512, size: 16, stride: 2 },
  "resnet-4": { n: 32, c: 512, m: 512, size: 8 },
  "cnn-2": { n: 128, c: 32, m: 32, size: 28 },
  "cnn-3": { n: 128, c: 32, m: 64, size: 14 },
  "cnn-4": { n: 128, c: 64, m: 64, size: 14 },
};

/** The first run of a session finds no memory, the second takes what the first has used in one piece. */
const WARM_UP = 2;

interface Way {
  readonly fewer: boolean;
  readonly gradients: boolean;
}

const WAYS: Readonly<Record<string, Way>> = {
  "y, by definition": { fewer: false, gradients: false },
  "y, fewer products": { fewer: true, gradients: false },
  "y, dx, dw, by definition": { fewer: false, gradients: true },
  "y, dx, dw, fewer products": { fewer: true, gradients: true },
};

function dimsOfLayer({ n, c, m, size, stride = 1 }: Layer) {
  return { x: [n, c, size, size], w: [m, c, 3, 3], dy: [n, m, size / stride, size / stride] };
}

async function open(layer: Layer, { fewer, gradients }: Way, threads: number): Promise<Session> {
  const dims = dimsOfLayer(layer);
  const model = new Model({ irVersion: 10, opsets: [["", 21]], graphName: "layer" });
  const { graph } = model;
  const g = new GraphBuilder(graph);
  const [x, w, dy] = Object.entries(dims).map(([name, of]) => graph.addInput(name, "float32", of)) as [
    Value,
    Value,
    Value,
  ];
  const { stride = 1 } = layer;
  const conv = g.op("Conv", [x, w], {
    ...{ kernel_shape: ints([3, 3]), pads: ints([1, 1, 1, 1]), strides: ints([stride, stride]) },
  });
  conv.retype("float32", dims.dy);
  graph.addOutput(conv);
  if (fewer) useFewerProducts(graph, () => true);
  const [y] = graph.outputs as [Value];
  const product = g.mul(y, dy);
  product.retype("float32", dims.dy);
  const loss = g.sumAll(product);
  loss.retype("float32", []);
  const found = gradients ? buildGradients(g, loss, [x, w]) : undefined;
  graph.removeOutput(y);
  const results = [y, ...(found ? [found.get(x)!, found.get(w)!] : [])];
  for (const result of results) graph.addOutput(g.op("ReduceMax", [result], { keepdims: int(0) }));
  const block = await blockOnThisMachine(openSession);
  if (block !== undefined) blockConvolutions(graph, block);
  return openSession({ bytes: modelToBytes(model) }, { threads });
}

function feedsOf(layer: Layer): Record<string, Tensor> {
  return Object.fromEntries(
    Object.entries(dimsOfLayer(layer)).map(([name, dims]) => {
      const data = new Float32Array(elementCount(dims));
      new Random(1, name).fillNormal(data);
      return [name, tensorOf("float32", dims, data)];
    }),
  );
}

const [names = Object.keys(LAYERS).join(","), rounds = "5", threads = "1"] = process.argv.slice(2);
for (const name of names.split(",")) {
  const layer = LAYERS[name]!;
  const feeds = feedsOf(layer);
  const ways: { readonly way: string; readonly session: Session; readonly times: number[] }[] = [];
  for (const [way, which] of Object.entries(WAYS)) {
    ways.push({ way, session: await open(layer, which, Number(threads)), times: [] });
  }
  for (let round = -WARM_UP; round < Number(rounds); round++) {
    for (const { session, times } of ways) {
      const [used, started] = [process.cpuUsage(), performance.now()];
      await session.run(feeds);
      const { user, system } = process.cpuUsage(used);
      if (round >= 0) times.push(Number(threads) === 1 ? (user + system) / 1000 : performance.now() - started);
    }
  }
  console.log(`${name} ${JSON.stringify(layer)}`);
  for (const { way, session, times } of ways) {
    times.sort((a, b) => a - b);
    const [least, median] = [times[0]!, times[times.length >> 1]!].map((ms) => ms.toFixed(1).padStart(7));
    console.log(`  ${way.padEnd(26)} least ${least} ms, median ${median} ms`);
    await session.close();
  }
}
