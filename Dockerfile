# One image for both programs: `node src/main.ts` (API, the default) and `node workers/main.ts` (worker).
# It is Debian because onnxruntime-node has no build for musl.

FROM node:24-slim AS packages
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# No install script is needed: the CPU runtime ships in the package, and Node is the image's own.
RUN npm ci --omit=dev --ignore-scripts
# Keep the runtime's library for this platform only: the package carries those of five.
RUN cd node_modules/onnxruntime-node/bin/napi-v6 \
 && mv "linux/$(node -p process.arch)" /tmp/runtime \
 && rm -rf ./* \
 && mkdir linux \
 && mv /tmp/runtime "linux/$(node -p process.arch)"
RUN node -e 'require("onnxruntime-node"); require("sharp")'

FROM node:24-slim
ENV NODE_ENV=production HOST=0.0.0.0 PORT=8080 DATA_DIR=/data NODE_COMPILE_CACHE=/data/compiled
WORKDIR /app
RUN mkdir /data && chown node:node /data
COPY --from=packages /app/node_modules node_modules
COPY package.json ./
COPY src src
COPY workers workers
USER node
VOLUME /data
EXPOSE 8080
CMD ["node", "src/main.ts"]
