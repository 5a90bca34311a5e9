// Generated from openapi.yaml by `npm run openapi`.
export interface paths {
    "/v1/models": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List models
         * @description Page by page: `next_cursor` of one page is the `cursor` of the next. Filters narrow it down together; a page may be short, or empty, although there is a next one: a request looks through 10,000 records at the most.
         */
        get: operations["listModels"];
        put?: never;
        /**
         * Upload a model
         * @description Sends an ONNX model as a form: one part named `file` for each file; the filename of external data is the `location` that the model names. It is loaded once in the runtime before it is accepted. The same bytes again answer 200 with the model that is there already, unless they come with another `name` or other `metadata`, or from another key: then they are a model of their own. For the command line the raw bytes of one `.onnx` are taken as well, as `application/octet-stream`, with `?name=`.
         */
        post: operations["createModel"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/from-uploads": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Make a model of resumable uploads
         * @description As `createModel`, for files that were sent by `createUpload` and `appendUpload`: they are named, with the filename that each has in the model, and used up.
         */
        post: operations["createModelFromUploads"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get a model
         * @description What is known of it: inputs and outputs, operators, weights, whether it can be trained.
         */
        get: operations["getModel"];
        put?: never;
        post?: never;
        /**
         * Delete a model
         * @description Jobs that it was made by, and models that were made of it, stay. A model that a job is using stays, too (409).
         */
        delete: operations["deleteModel"];
        options?: never;
        head?: never;
        /**
         * Change what a model is called
         * @description Its name, its metadata, or both. Jobs that have used it, and their reports, keep the name that it had.
         */
        patch: operations["renameModel"];
        trace?: never;
    };
    "/v1/models/{model_id}/content": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Download a model
         * @description The `.onnx`; a `.tar` of all files when the model has external data (then without `Repr-Digest`): the file's name in `Content-Disposition` tells which.
         */
        get: operations["downloadModel"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/{model_id}/layers": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List a model's layers
         * @description One row for each node that holds weights.
         */
        get: operations["listModelLayers"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/datasets": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List datasets
         * @description Page by page: `next_cursor` of one page is the `cursor` of the next. Filters narrow it down together; a page may be short, or empty, although there is a next one: a request looks through 10,000 records at the most.
         */
        get: operations["listDatasets"];
        put?: never;
        /**
         * Upload a dataset
         * @description `.npz` and `.safetensors`: arrays named after the model's inputs, first axis = samples, optionally `labels`. The other formats need a `spec`, which says what feeds which input: `.npy` (one array), `.zip` (images, in a folder for each class), `.csv`, `.jsonl`, `.parquet` (a row or line for each sample). Arrays of objects are refused. The same file with the same spec answers 200 with the dataset that is there already, unless it comes with another `name` or other `metadata`, or from another key. For the command line the raw bytes are taken as well, as `application/octet-stream`, with `?name=` (a file name, whose suffix tells the format) and `?spec=`.
         */
        post: operations["createDataset"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/datasets/from-uploads": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Make a dataset of a resumable upload
         * @description As `createDataset`, for a file that was sent by `createUpload` and `appendUpload`: it is named and used up. The suffix of `filename` tells the format.
         */
        post: operations["createDatasetFromUploads"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/datasets/{dataset_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get a dataset
         * @description What is known of it: its fields, what their values are like, and what the labels are.
         */
        get: operations["getDataset"];
        put?: never;
        post?: never;
        /**
         * Delete a dataset
         * @description A dataset that a job is using stays (409).
         */
        delete: operations["deleteDataset"];
        options?: never;
        head?: never;
        /**
         * Change what a dataset is called
         * @description Its name, its metadata, or both. Jobs that have used it, and their reports, keep the name that it had.
         */
        patch: operations["renameDataset"];
        trace?: never;
    };
    "/v1/datasets/{dataset_id}/classes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List a dataset's classes
         * @description The names that the labels are numbers of, in the order of the numbers; none where labels have no names.
         */
        get: operations["listDatasetClasses"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/datasets/{dataset_id}/content": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Download a dataset
         * @description The file as it was sent.
         */
        get: operations["downloadDataset"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/models/from-source": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Make a model of files at an address
         * @description As `createModel`, for files that the service fetches: the answer comes when it has them. Hosts must be on the operator's list (`SOURCE_ALLOW_HOSTS`), and so must those that they redirect to; buckets (`SOURCE_ALLOW_BUCKETS`), registered models of MLflow (`SOURCE_ALLOW_REGISTERED_MODELS`) and repositories of Hugging Face (`SOURCE_ALLOW_REPOSITORIES`) must be on others, and are read with the operator's credentials. Send an `Idempotency-Key` to ask again without a second fetch counting as another one.
         */
        post: operations["createModelFromSource"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/datasets/from-source": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Make a dataset of a file at an address
         * @description As `createDataset`, for files that the service fetches: the answer comes when it has them. Hosts must be on the operator's list (`SOURCE_ALLOW_HOSTS`), and so must those that they redirect to; buckets (`SOURCE_ALLOW_BUCKETS`), registered models of MLflow (`SOURCE_ALLOW_REGISTERED_MODELS`) and repositories of Hugging Face (`SOURCE_ALLOW_REPOSITORIES`) must be on others, and are read with the operator's credentials. Send an `Idempotency-Key` to ask again without a second fetch counting as another one.
         */
        post: operations["createDatasetFromSource"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/uploads": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Start a resumable upload
         * @description tus 1.0. When it is finished, name it to `createModelFromUploads` or `createDatasetFromUploads`.
         */
        post: operations["createUpload"];
        delete?: never;
        /**
         * What the upload protocol can do here
         * @description tus 1.0: the answer is in its headers.
         */
        options: operations["getUploadOptions"];
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/uploads/{upload_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Throw an upload away
         * @description Uploads that nobody uses are thrown away by themselves when they expire.
         */
        delete: operations["deleteUpload"];
        options?: never;
        /**
         * How far an upload is
         * @description tus 1.0: ask before going on with an upload that was cut off.
         */
        head: operations["getUploadOffset"];
        /**
         * Send the next bytes of an upload
         * @description tus 1.0. What has arrived stays, whatever happens to the connection.
         */
        patch: operations["appendUpload"];
        trace?: never;
    };
    "/v1/jobs": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List jobs
         * @description Page by page: `next_cursor` of one page is the `cursor` of the next. Filters narrow it down together; a page may be short, or empty, although there is a next one: a request looks through 10,000 records at the most.
         */
        get: operations["listJobs"];
        put?: never;
        /**
         * Start a job
         * @description Compresses a model, trains one, or measures some. The request is checked against the recorded facts of models and datasets at once; follow the job by its Location or its events, or wait for its end with `Prefer: wait=60`. For the command line, `?validate_only=true` is `planJob`.
         */
        post: operations["createJob"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/plan": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Ask what a job would do
         * @description Takes the same request as `createJob`, refuses what that refuses, and stores nothing.
         */
        post: operations["planJob"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/webhook-secrets": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Make a secret for a receiver of webhooks
         * @description What your jobs tell this URL is signed with it, and with nobody else's. Asked again, it is a new one; for a day everything is signed with both, so that the receiver can change over.
         */
        post: operations["createWebhookSecret"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}/webhook/redeliver": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Tell of a job's end once more
         * @description Sends what the job's webhook was told of its end again, under the same `webhook-id`: for a receiver that was away for too long. What is still tried is tried now.
         */
        post: operations["redeliverJobWebhook"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get a job
         * @description Where it stands; when it has ended, what came of it. With `Prefer: wait=60` it answers when the job has ended.
         */
        get: operations["getJob"];
        put?: never;
        post?: never;
        /**
         * Delete a job
         * @description With its events and artifacts; the model it made stays.
         */
        delete: operations["deleteJob"];
        options?: never;
        head?: never;
        /**
         * Change what a job is called
         * @description Its name, its metadata, or both, whether it has ended or not. Its report keeps the name that it had.
         */
        patch: operations["renameJob"];
        trace?: never;
    };
    "/v1/jobs/{job_id}/cancel": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Cancel a job
         * @description A waiting job is cancelled at once, a running one within a few seconds. Asking again is no error.
         */
        post: operations["cancelJob"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}/retry": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Run a finished job again
         * @description Makes a new job with the same request; its `retry_of` names the old one.
         */
        post: operations["retryJob"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List what has happened to a job
         * @description Page by page. To be told as it happens: `streamJobEvents`, which also answers here to who prefers `text/event-stream` in `Accept`.
         */
        get: operations["listJobEvents"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}/events/stream": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Follow a job
         * @description Server-sent events as they come: the data of each is a `JobEvent` as JSON, its id works as `Last-Event-ID` after a reconnection, and the stream ends after the event of the job's final status.
         */
        get: operations["streamJobEvents"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}/links": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Make a link to a file of a job
         * @description For browsers, chats and people without a key: the link opens the report or one other artifact until it expires. It cannot be taken back before, other than by deleting the job.
         */
        post: operations["createJobLink"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}/artifacts/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Download a file that a job made
         * @description By its name in `result.artifacts`. Whatever it is, it comes as bytes to be saved; `media_type` there says what it is. It is to be saved under the name of the model that the job has made. A link of `createJobLink` needs no key.
         */
        get: operations["downloadJobArtifact"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/jobs/{job_id}/report": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read a job's report
         * @description A page that needs nothing from the network. Its numbers are the artifact `report.json`. A link of `createJobLink` needs no key.
         */
        get: operations["getJobReport"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/compare": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Compare jobs
         * @description The numbers of several jobs side by side, and what keeps them from being compared. Jobs that have not ended are in it without numbers. For the command line, `?jobs=` is the same.
         */
        get: operations["compareJobs"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/compare/report": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Read a comparison of jobs
         * @description The same as a page that needs nothing from the network.
         */
        get: operations["getComparisonReport"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/healthz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Whether the process is alive
         * @description Looks at nothing else: a probe that restarts what has died.
         */
        get: operations["getHealth"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/readyz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Whether jobs can be accepted and run
         * @description Looks whether Redis takes writes, at the blob store and at the workers. 503 names in `errors` each part that is missing.
         */
        get: operations["getReadiness"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/metrics": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Numbers for Prometheus
         * @description Requests, jobs, queue and workers. The guide to operations says what each means.
         */
        get: operations["getMetrics"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/capabilities": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * What this service can do
         * @description Ask it instead of knowing it: methods, file formats, metrics, targets and the limits in force.
         */
        get: operations["getCapabilities"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/openapi.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * This document as JSON
         * @description To generate a client from the service that it is for.
         */
        get: operations["getOpenApiJson"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/openapi.yaml": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * This document as YAML
         * @description To generate a client from the service that it is for.
         */
        get: operations["getOpenApiYaml"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        AcceptanceCheck: {
            name: string;
            /** Format: double */
            limit: number;
            /** Format: double */
            value: number | null;
            ok: boolean;
        };
        AcceptanceLimits: {
            /** Format: double */
            max_metric_drop?: number;
            /** Format: double */
            min_sqnr_db?: number;
            /** Format: double */
            max_size_ratio?: number;
            /** Format: double */
            min_speedup?: number;
        };
        AccuracyMetrics: {
            /** @description Now one of `top1`, `top5`, `f1_macro`, `binary_accuracy`, `binary_f1`, `mse`, `mae`, `rmse`; more may be added. */
            metric: string;
            /** Format: double */
            before: number;
            /** Format: double */
            after: number;
            /** Format: double */
            drop: number;
            /** Format: int64 */
            samples: number;
            /** @description Of `drop`, on the same samples in both models: Agresti and Min's for shares of samples, else by bootstrap. A smaller drop may be chance. */
            interval: components["schemas"]["Interval"] | null;
            /** @description Wilson's for shares of samples, else by bootstrap. */
            before_interval: components["schemas"]["Interval"] | null;
            after_interval: components["schemas"]["Interval"] | null;
        };
        /** @enum {string} */
        ActivationDtype: "auto" | "uint8" | "int8";
        /** @enum {string} */
        AnyTargetName: "auto" | "web" | "openvino" | "tensorrt" | "qnn";
        /** @description For `.npy`: the array has no name, and is for this model input. The kind may be left out. */
        ArraySpec: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "array";
            /** @description The model input. */
            input: string;
        };
        Artifact: {
            name: string;
            media_type: string;
            /** Format: int64 */
            size_bytes: number;
            /** @description Lower-case hexadecimal. */
            sha256: string;
            url: string;
        };
        /** @description Random changes of the images [N, C, H, W] of one input. */
        Augmentation: {
            input: string;
            /**
             * @description Mirror half of the images left to right.
             * @default false
             */
            flip?: boolean;
            /**
             * Format: int64
             * @default 0
             */
            shift_pixels?: number;
            /**
             * Format: int64
             * @description Side of a square that is blanked.
             * @default 0
             */
            cutout_pixels?: number;
            /**
             * Format: double
             * @description What black is in the dataset.
             * @default 0
             */
            fill?: number;
        };
        AutoBudget: {
            /**
             * Format: int64
             * @description Of the whole job once it runs.
             * @default 600
             */
            seconds?: number;
            /**
             * Format: int64
             * @description That are tried for a target, at most.
             * @default 40
             */
            candidates?: number;
        };
        AutoCandidate: {
            name: string;
            /** @description What it was made and judged for. */
            target: string;
            /** @description Null for the original. Posted as a job, it makes the same bytes. */
            spec: {
                [key: string]: unknown;
            } | null;
            /** @description Of those on the front. */
            model_id: string | null;
            sha256: string | null;
            /** @description How far it came. Now one of `planned`, `made`, `tried`, `measured`; more may be added. */
            stage: string;
            predicted: components["schemas"]["CandidatePrediction"] | null;
            measured: components["schemas"]["CandidateMeasurement"] | null;
            /** @description Of those that were measured: what the runtime of its target makes of it. Null for onnxruntime on a CPU. */
            deployment: components["schemas"]["DeploymentMetrics"] | null;
            /** @description Nothing else beats it in size, latency and quality. */
            on_front: boolean;
            recommended: boolean;
            dropped: components["schemas"]["DroppedCandidate"] | null;
        };
        /** @description What the recommended model must hold; null: no matter. */
        AutoConstraints: {
            /**
             * Format: double
             * @description Needs labels in the data that results are judged on. Unless given: `null`.
             */
            max_metric_drop?: number | null;
            /**
             * Format: double
             * @description Of the worst output. Unless given: `null`.
             */
            min_sqnr_db?: number | null;
            /**
             * Format: int64
             * @description Unless given: `null`.
             */
            max_size_bytes?: number | null;
            /**
             * Format: double
             * @description Of the size of the original. Unless given: `null`.
             */
            max_size_ratio?: number | null;
            /**
             * Format: double
             * @description Against the original. Unless given: `null`.
             */
            min_speedup?: number | null;
            /**
             * Format: double
             * @description Median of a run at `evaluation.latency`, on the machine that runs the job. Unless given: `null`.
             */
            max_latency_ms?: number | null;
            /**
             * Format: int64
             * @description Peak of a process that loads and runs the model, runtime and all. Unless given: `null`.
             */
            max_memory_bytes?: number | null;
        };
        AutoJobRequest: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            type: "auto";
            model_id: string;
            params: components["schemas"]["AutoParams"];
            evaluation?: components["schemas"]["EvaluationOptions"];
            acceptance?: components["schemas"]["AcceptanceLimits"];
            /** @description Unless given: `null`. */
            name?: string | null;
            metadata?: components["schemas"]["Metadata"];
            /**
             * Format: int64
             * @description 1 runs first.
             * @default 5
             */
            priority?: number;
            /** @description Unless given: `null`. */
            webhook?: components["schemas"]["WebhookTarget"] | null;
            /** @description Unless given: `null`. */
            deliver_to?: components["schemas"]["DeliveryTarget"] | null;
        };
        /** @description What a search has found. */
        AutoMetrics: {
            candidates: components["schemas"]["AutoCandidate"][];
            recommendation: components["schemas"]["AutoRecommendation"];
            /** @description Those that were set, for the recommended model. */
            constraints: components["schemas"]["AcceptanceCheck"][];
            /** @description In the order of the job. `recommendation` and `constraints` beside it are those of the first; with several targets, candidates are called by theirs, too. */
            targets: components["schemas"]["AutoTarget"][];
            /** Format: double */
            seconds: number;
        };
        /** @enum {string} */
        AutoObjective: "latency" | "size" | "memory" | "metric";
        AutoParams: {
            /** @description Samples of what the model will see: for calibration, for quick trials and, without `evaluation.dataset_id`, for the judgement on samples that no trial has seen. */
            dataset_id: string;
            /**
             * @description What the recommended model is best in among those that hold the constraints. `metric` is the SQNR of the worst output where there are no labels.
             * @default latency
             */
            objective?: components["schemas"]["AutoObjective"];
            constraints?: components["schemas"]["AutoConstraints"];
            /** @description Only these; null: all. Unless given: `null`. */
            methods?: components["schemas"]["SearchedMethod"][] | null;
            /**
             * @description Also trains: the model with its rounding in it (`qat`), taught by itself, to weights of 8, 4 and 2 bits; and students of half and a quarter of its width that it teaches (`distill`), as they are and in static int8. It takes minutes, and needs a model that can be trained and `evaluation.dataset_id`, because what was trained on cannot judge.
             * @default false
             */
            training?: boolean;
            /** @description What candidates are made for. For each there is a search, a front and a recommendation (`metrics.auto.targets`), and the budget is divided among them; the model of the job is the one recommended for the first. Speeds are those of the machine that runs the job, for `web` those of onnxruntime-web there; what other runtimes want is checked. Unless given: `["auto"]`. */
            targets?: components["schemas"]["TargetName"][];
            budget?: components["schemas"]["AutoBudget"];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        AutoRecommendation: {
            candidate: string;
            /** @description The original's id when nothing is better. */
            model_id: string;
            why: string;
            next_better: components["schemas"]["NextBetter"] | null;
        };
        /** @description What was found for one target. */
        AutoTarget: {
            target: string;
            /** @description Whether what is recommended for it holds all limits. */
            accepted: boolean;
            recommendation: components["schemas"]["AutoRecommendation"];
            /** @description Those that were set, for the recommended model. */
            constraints: components["schemas"]["AcceptanceCheck"][];
        };
        BornAgainLoss: {
            /**
             * Format: double
             * @default 1
             */
            temperature?: number;
            /**
             * Format: double
             * @description Of the generation before, from the second one on.
             * @default 1
             */
            kl_weight?: number;
            /**
             * Format: double
             * @description Of the labels, from the second generation on.
             * @default 1
             */
            label_weight?: number;
            /** @description How outputs are compared: `kl` is for class scores and for shares, of which each is compared by itself; the others are for any numbers. Null: `kl` where it can be, else `mse` (`meaning` of the models' outputs). Unless given: `null`. */
            output_loss?: components["schemas"]["OutputLossKind"] | null;
            /**
             * Format: double
             * @default 0
             */
            label_smoothing?: number;
            /**
             * Format: int64
             * @description The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the one of `evaluation` stand in for each other where only one is given. Unless given: `null`.
             */
            ignore_label?: number | null;
        };
        BornAgainParams: {
            /** @constant */
            mode: "self";
            /** @description What is trained on; it must have labels. */
            dataset_id: string;
            student: components["schemas"]["UploadedStudent"];
            /** @constant */
            self_kind: "born_again";
            /**
             * Format: int64
             * @description At the most: one that is no better than the one before is the last. The first learns from labels alone.
             * @default 3
             */
            generations?: number;
            /**
             * @description Make one model of all generations that answers with their mean: as many times as large and slow.
             * @default false
             */
            average?: boolean;
            loss?: components["schemas"]["BornAgainLoss"];
            training?: components["schemas"]["Training"];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        /** @enum {string} */
        CalibrationMethod: "minmax" | "moving_average" | "percentile" | "entropy" | "mse" | "auto";
        /** @description On all samples, and timed with all finalists in turns; for `web` `latency` is that of onnxruntime-web, beside the original. */
        CandidateMeasurement: {
            size: components["schemas"]["SizeMetrics"];
            fidelity: components["schemas"]["FidelityMetrics"];
            accuracy: components["schemas"]["AccuracyMetrics"] | null;
            latency: components["schemas"]["LatencyMetrics"];
            memory: components["schemas"]["MemoryMetrics"];
        };
        /** @description What a few samples and a few timed runs have shown; sizes are exact. */
        CandidatePrediction: {
            /** Format: int64 */
            size_bytes: number;
            /** Format: double */
            size_ratio: number;
            /** Format: int64 */
            samples: number;
            /** Format: double */
            sqnr_db: number | null;
            /** Format: double */
            metric_drop: number | null;
            /** Format: double */
            speedup: number;
        };
        Capabilities: {
            versions: components["schemas"]["Versions"];
            model_suffixes: string[];
            dataset_suffixes: string[];
            methods: components["schemas"]["Method"][];
            metrics: string[];
            targets: components["schemas"]["Target"][];
            /** @description Operators that gradients pass through. A student of others is refused; a teacher can be made of any. */
            trainable_operators: string[];
            limits: components["schemas"]["Limits"];
        };
        ComparedJob: {
            job_id: string;
            name: string | null;
            type: string;
            method: string;
            /** @description What the job does, in words. */
            title: string;
            /** @description Now one of `queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`; more may be added. */
            status: string;
            /** @description What its result is a form of. */
            model_id: string;
            result_model_id: string | null;
            /** @description Null for a job without a result. */
            accepted: boolean | null;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            created_at: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            finished_at: string | null;
            /** @description Null for a job without a result. */
            metrics: components["schemas"]["ComparedMetrics"] | null;
        };
        ComparedMetrics: {
            size: components["schemas"]["SizeMetrics"];
            accuracy: components["schemas"]["AccuracyMetrics"] | null;
            latency: components["schemas"]["LatencyMetrics"];
            memory: components["schemas"]["MemoryMetrics"];
            acceptance: components["schemas"]["AcceptanceCheck"][];
            /**
             * Format: double
             * @description Of the output that differs most from the original's; null where all are identical.
             */
            worst_sqnr_db: number | null;
            /** @description What it was found on, as in `metrics.fidelity.data`. */
            fidelity_data: string;
        };
        Comparison: {
            /** @description In the order that was asked for. */
            jobs: components["schemas"]["ComparedJob"][];
            /** @description What keeps numbers from being compared: `models_differ`, `data_differ`, `metrics_differ`, `loads_differ`, `machines_differ`, or what later versions add. */
            differences: components["schemas"]["ComparisonDifference"][];
        };
        ComparisonDifference: {
            code: string;
            message: string;
        };
        CoverageMetrics: {
            /** Format: int64 */
            quantized_nodes: number;
            skipped_nodes: components["schemas"]["NodeNote"][];
            /**
             * Format: int64
             * @description Nodes of the graph onnxruntime runs that compute on quantized data.
             */
            fused_nodes: number;
            float_islands: components["schemas"]["NodeNote"][];
        };
        CsvColumns: {
            /** @description In this order. Unless given: all columns that no other input and not the labels take, in the order of the file. */
            columns?: (string | number)[];
            /** @default float32 */
            dtype?: components["schemas"]["TableDtype"];
            /** @description Of one sample; one axis of all its numbers unless given. */
            shape?: number[];
        };
        /** @description For `.csv`: a row is a sample. */
        CsvSpec: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "csv";
            /**
             * @description Whether the first row has the names of the columns.
             * @default true
             */
            header?: boolean;
            /**
             * @description What stands between columns: a comma, a semicolon, a tab or a `|`.
             * @default ,
             */
            delimiter?: string;
            /** @description By model input. Columns are given by name, or by number from 0. */
            inputs: {
                [key: string]: components["schemas"]["CsvColumns"];
            };
            /** @description Column of the labels: class numbers, class names (their sorted list becomes `classes`), or numbers. */
            labels?: string | number;
        };
        /** @description As onnxruntime names it; more may be added. Now: float32, uint8, int8, uint16, int16, int32, int64, string, bool, float16, float64, uint32, uint64, complex64, complex128, bfloat16, float8e4m3fn, float8e4m3fnuz, float8e5m2, float8e5m2fnuz, uint4, int4, float4e2m1, float8e8m0, uint2, int2. */
        DType: string;
        Dataset: {
            id: string;
            /** @description Always `dataset`. */
            object: string;
            name: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            created_at: string;
            /** Format: int64 */
            size_bytes: number;
            /** @description Lower-case hexadecimal. */
            sha256: string;
            /** Format: int64 */
            samples: number;
            fields: components["schemas"]["DatasetField"][];
            has_labels: boolean;
            /** @description What the labels are numbers of. Null where they have no names, and where those are too long for here. */
            classes: string[] | null;
            /**
             * Format: int64
             * @description Null where labels have no names; all of them: `listDatasetClasses`.
             */
            class_count: number | null;
            /** @description Null without labels, and for datasets of earlier versions. */
            labels: components["schemas"]["DatasetLabels"] | null;
            /** @description What is strange about the values. */
            warnings: components["schemas"]["DatasetWarning"][];
            metadata: components["schemas"]["Metadata"];
        };
        DatasetClassPage: {
            data: string[];
            /** @description Null on the last page. */
            next_cursor: string | null;
        };
        /** @description `shape` is that of one sample. */
        DatasetField: {
            name: string;
            dtype: components["schemas"]["DType"];
            shape: number[];
            /** @description Null for images, and for datasets of earlier versions. */
            content: components["schemas"]["FieldContent"] | null;
        };
        DatasetForm: {
            /** Format: binary */
            file: string;
            name?: string;
            /** @description JSON, as in `DatasetSpec`. */
            spec?: string;
            /** @description A JSON object of strings, as in `Metadata`. */
            metadata?: string;
        };
        DatasetFromSource: {
            source: components["schemas"]["DatasetSource"];
            name?: string;
            metadata?: components["schemas"]["Metadata"];
            spec?: components["schemas"]["DatasetSpec"];
        };
        /** @description A dataset from a finished resumable upload, which is used up by it. */
        DatasetFromUploads: {
            uploads: components["schemas"]["UploadReference"][];
            name?: string;
            metadata?: components["schemas"]["Metadata"];
            spec?: components["schemas"]["DatasetSpec"];
        };
        /** @description What the labels are like. `shape` is that of one sample. */
        DatasetLabels: {
            dtype: components["schemas"]["DType"];
            shape: number[];
            /** Format: int64 */
            count: number;
            /**
             * Format: double
             * @description Of the finite values; null where there are none.
             */
            min: number | null;
            /** Format: double */
            max: number | null;
            /**
             * Format: int64
             * @description Values that are NaN or infinite.
             */
            non_finite: number;
            first_non_finite: components["schemas"]["NonFinitePlace"] | null;
            /** @description All are whole numbers, whatever their dtype. */
            integers: boolean;
            /** @description Every row along the last axis has a single 1 among zeros. */
            one_hot: boolean;
            /**
             * Format: int64
             * @description Null when they are not integers, or too many to count.
             */
            distinct: number | null;
            /** @description The smallest and the largest integers: all of them when they are few. */
            outermost: components["schemas"]["LabelValue"][];
        };
        DatasetPage: {
            data: components["schemas"]["DatasetSummary"][];
            /** @description Null on the last page. */
            next_cursor: string | null;
        };
        /** @description One file; the suffix of its name tells the format. */
        DatasetSource: {
            kind: components["schemas"]["DatasetSourceKind"];
            files: components["schemas"]["SourceFile"][];
        };
        /** @enum {string} */
        DatasetSourceKind: "https" | "s3" | "huggingface";
        /** @description What the file itself does not say. `.npz` and `.safetensors` say it all and take none. */
        DatasetSpec: components["schemas"]["ArraySpec"] | components["schemas"]["ImagesSpec"] | components["schemas"]["CsvSpec"] | components["schemas"]["JsonlSpec"] | components["schemas"]["ParquetSpec"];
        /** @description What lists tell of a dataset; ask for the dataset to know more. */
        DatasetSummary: {
            id: string;
            /** @description Always `dataset`. */
            object: string;
            name: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            created_at: string;
            /** Format: int64 */
            size_bytes: number;
            /** @description Lower-case hexadecimal. */
            sha256: string;
            /** Format: int64 */
            samples: number;
            has_labels: boolean;
            metadata: components["schemas"]["Metadata"];
        };
        /** @description `non_finite`, `all_zero`, `constant`, or what later versions add. */
        DatasetWarning: {
            code: string;
            field: string;
            message: string;
        };
        /** @enum {string} */
        DeliveryKind: "put" | "s3" | "mlflow";
        /** @description Where to put an artifact when the job has succeeded. */
        DeliveryTarget: {
            kind: components["schemas"]["DeliveryKind"];
            /** @description `put`: https, at a host that the operator has allowed; an address that is signed for one PUT. `s3`: `s3://bucket/key`, in a bucket that the operator has allowed, written with the operator's credentials; an object of this key is replaced. `mlflow`: `models:/name`, a registered model of the operator's MLflow that the operator has allowed; the job makes a new version of it. It is not told again: `delivery.location` says where the artifact is. */
            url: string;
            /**
             * @description By the name that it will have in `result.artifacts`.
             * @default model.onnx
             */
            artifact?: string;
        };
        /** @description A result beside what the runtime wants that it was made for. */
        DeploymentMetrics: {
            target: string;
            /** @description What the runtime wants of a model, checked on the file that was written; nothing was run for it. */
            rules: components["schemas"]["TargetRule"][];
            /** @description Runs in the runtime itself. Null where it is not on this machine: then rules were checked, and no more. */
            measured: components["schemas"]["ElsewhereMetrics"] | null;
            /** @description Why the runtime did not run the result. */
            failure: string | null;
            /** @description Files as they travel, where models are loaded over a network. */
            download: components["schemas"]["DownloadMetrics"] | null;
        };
        /** @description How the student is made from the teacher, with its weights. */
        Derivation: components["schemas"]["DeriveLayers"] | components["schemas"]["DeriveWidth"] | components["schemas"]["DeriveRank"];
        /** @description Share of the repeated blocks. */
        DeriveLayers: {
            /** Format: double */
            keep_layers: number;
        };
        /** @description Share of the parameters that factorized layers keep. */
        DeriveRank: {
            /** Format: double */
            rank: number;
        };
        /** @description Share of the channels. */
        DeriveWidth: {
            /** Format: double */
            width: number;
        };
        /** @description The job that made the model, and the model it was made from. */
        DerivedFrom: {
            job_id: string;
            model_id: string;
        };
        DerivedStudent: {
            derive: components["schemas"]["Derivation"];
        };
        DistillJobRequest: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            type: "distill";
            params: components["schemas"]["DistillParams"];
            evaluation?: components["schemas"]["EvaluationOptions"];
            acceptance?: components["schemas"]["AcceptanceLimits"];
            /** @description Unless given: `null`. */
            name?: string | null;
            metadata?: components["schemas"]["Metadata"];
            /**
             * Format: int64
             * @description 1 runs first.
             * @default 5
             */
            priority?: number;
            /** @description Unless given: `null`. */
            webhook?: components["schemas"]["WebhookTarget"] | null;
            /** @description Unless given: `null`. */
            deliver_to?: components["schemas"]["DeliveryTarget"] | null;
        };
        DistillLoss: {
            /**
             * Format: double
             * @default 4
             */
            temperature?: number;
            /**
             * Format: double
             * @description Of the teacher's outputs. 0 trains on labels alone.
             * @default 0.9
             */
            kl_weight?: number;
            /**
             * Format: double
             * @description Of the labels. Must be 0 for a dataset without any.
             * @default 0.1
             */
            label_weight?: number;
            /** @description How outputs are compared: `kl` is for class scores and for shares, of which each is compared by itself; `dkd` is for class scores; the others are for any numbers. Null: `kl` where it can be, else `mse` (`meaning` of the models' outputs). Unless given: `null`. */
            output_loss?: components["schemas"]["TeacherLossKind"] | null;
            /**
             * Format: double
             * @default 0
             */
            label_smoothing?: number;
            /**
             * Format: int64
             * @description The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the one of `evaluation` stand in for each other where only one is given. Unless given: `null`.
             */
            ignore_label?: number | null;
            /**
             * Format: double
             * @description Of `dkd`: the weight of the target class.
             * @default 1
             */
            alpha?: number;
            /**
             * Format: double
             * @description Of `dkd`: the weight of all other classes.
             * @default 8
             */
            beta?: number;
            hints?: components["schemas"]["Hint"][];
            /** @description Which outputs mean the same; null pairs them by name, or the only one with the only one. Unless given: `null`. */
            outputs?: components["schemas"]["OutputPair"][] | null;
        };
        DistillParams: components["schemas"]["OfflineDistillParams"] | components["schemas"]["OnlineDistillParams"] | components["schemas"]["BornAgainParams"] | components["schemas"]["OwnTeacherParams"] | components["schemas"]["MeanTeacherParams"];
        /** @description Trains. A `model_id` of `previous` is the model of the step before: as the student, or as the teacher. */
        DistillStep: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            type: "distill";
            /** @description What reports and artifacts of the step are called. When it is not given: `step-1`, `step-2`, … */
            name?: string;
            params: components["schemas"]["DistillParams"];
        };
        DownloadMetrics: {
            /** @description Now one of `gzip`; more may be added. */
            encoding: string;
            /** Format: int64 */
            before_bytes: number;
            /** Format: int64 */
            after_bytes: number;
        };
        /** @description When, and why. */
        DroppedCandidate: {
            /** @description Now one of `planned`, `made`, `tried`, `measured`; more may be added. */
            stage: string;
            code: string;
            message: string;
        };
        DynamicParams: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            method: "dynamic";
            /** @default int8 */
            weight_dtype?: components["schemas"]["WeightDtype"];
            /**
             * @description One scale for each output channel instead of one for each tensor.
             * @default true
             */
            per_channel?: boolean;
            /** @description Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused. */
            exclude_nodes?: string[];
            /** @description Operator types to leave alone, as in the uploaded model. One that it does not have is refused. */
            exclude_ops?: string[];
            /**
             * @description What the model will run on: a kind of processor with onnxruntime, where `auto` is the one the worker runs on; or another runtime, whose rules the result is made by and checked against (`metrics.deployment`).
             * @default auto
             */
            target?: components["schemas"]["TargetName"];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        EffectiveAcceptanceLimits: {
            /** Format: double */
            max_metric_drop?: number;
            /** Format: double */
            min_sqnr_db?: number;
            /** Format: double */
            max_size_ratio?: number;
            /** Format: double */
            min_speedup?: number;
        };
        EffectiveEvaluationOptions: {
            /** @description Held-out data. Without it fidelity is measured on seeded synthetic input, and the report says so. */
            dataset_id: string | null;
            /**
             * Format: int64
             * @description Null takes all there are, up to 10,000 and to a minute of the slower model. Fewer than all are drawn at random, the same ones in every job.
             */
            samples: number | null;
            /** @description Needs labels in the dataset. Null: `top1` when they are classes of an output, `binary_accuracy` when they are 0 or 1 for each of its shares, `mse` when they are numbers in its shape, else none, with a warning. `none`: labels are not looked at. */
            metric: string | null;
            /**
             * Format: int64
             * @description The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the one of `evaluation` stand in for each other where only one is given.
             */
            ignore_label: number | null;
            /** @description Sizes for the model's symbolic dimensions, for synthetic input and latency: `{ "w": 320 }`; those without a name are called by input and axis, `{ "x.3": 320 }`. */
            dims: {
                [key: string]: number;
            };
            /** @description Look for the error of each layer, for no longer than half of the evaluation before it (and 10 s). False leaves them out. */
            layer_errors: boolean;
            latency: components["schemas"]["EffectiveLatencyOptions"];
        };
        EffectiveLatencyOptions: {
            /** Format: int64 */
            runs: number;
            /** Format: int64 */
            batch_size: number;
            /**
             * Format: int64
             * @description Intra-operator threads while measuring.
             */
            threads: number;
        };
        ElsewhereMetrics: {
            runtime: string;
            before: components["schemas"]["Timing"];
            after: components["schemas"]["Timing"];
            /** Format: double */
            speedup: number;
            /** @description By bootstrap over rounds; null for a single one. */
            speedup_interval: components["schemas"]["Interval"] | null;
            /** Format: int64 */
            runs: number;
            /** Format: int64 */
            threads: number;
            /** Format: double */
            load_ms: number;
            /**
             * Format: double
             * @description Of the result there against the result in onnxruntime on this machine, over float32 outputs; null when identical, and where there are none.
             */
            sqnr_db: number | null;
        };
        EpochRecord: {
            /**
             * Format: int64
             * @description Counts from 1.
             */
            epoch: number;
            /**
             * Format: double
             * @description Mean over the steps.
             */
            loss: number;
            /** @description Each term of the loss, before its weight. */
            losses: {
                [key: string]: number;
            };
            /** Format: double */
            validation_metric: number | null;
            /** Format: double */
            learning_rate: number;
            /** Format: double */
            samples_per_second: number;
        };
        EvaluateJobRequest: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            type: "evaluate";
            params: components["schemas"]["EvaluateParams"];
            evaluation?: components["schemas"]["EvaluationOptions"];
            acceptance?: components["schemas"]["AcceptanceLimits"];
            /** @description Unless given: `null`. */
            name?: string | null;
            metadata?: components["schemas"]["Metadata"];
            /**
             * Format: int64
             * @description 1 runs first.
             * @default 5
             */
            priority?: number;
            /** @description Unless given: `null`. */
            webhook?: components["schemas"]["WebhookTarget"] | null;
            /** @description Unless given: `null`. */
            deliver_to?: components["schemas"]["DeliveryTarget"] | null;
        };
        EvaluateParams: {
            /** @description What is measured. The others are held against the first. */
            model_ids: string[];
            /** @description Latency is measured at each; empty: at `evaluation.latency.batch_size`. */
            batch_sizes?: number[];
            /** @description And with each number of threads; empty: with `evaluation.latency.threads`. */
            threads?: number[];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        /** @description A model of an evaluation against the first of them. */
        EvaluatedModel: {
            model_id: string;
            /** @description What the model was called when it was measured. */
            name: string | null;
            /** Format: int64 */
            parameters: number;
            size: components["schemas"]["SizeMetrics"];
            fidelity: components["schemas"]["FidelityMetrics"];
            accuracy: components["schemas"]["AccuracyMetrics"] | null;
            latency: components["schemas"]["LatencyMetrics"];
            memory: components["schemas"]["MemoryMetrics"];
            acceptance: components["schemas"]["AcceptanceCheck"][];
            warnings: components["schemas"]["ResultWarning"][];
            /** @description At each batch size and number of threads. */
            latencies: components["schemas"]["LatencyMetrics"][];
        };
        EvaluationOptions: {
            /** @description Held-out data. Without it fidelity is measured on seeded synthetic input, and the report says so. Unless given: `null`. */
            dataset_id?: string | null;
            /**
             * Format: int64
             * @description Null takes all there are, up to 10,000 and to a minute of the slower model. Fewer than all are drawn at random, the same ones in every job. Unless given: `null`.
             */
            samples?: number | null;
            /** @description Needs labels in the dataset. Null: `top1` when they are classes of an output, `binary_accuracy` when they are 0 or 1 for each of its shares, `mse` when they are numbers in its shape, else none, with a warning. `none`: labels are not looked at. Unless given: `null`. */
            metric?: components["schemas"]["MetricName"] | null;
            /**
             * Format: int64
             * @description The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the one of `evaluation` stand in for each other where only one is given. Unless given: `null`.
             */
            ignore_label?: number | null;
            /** @description Sizes for the model's symbolic dimensions, for synthetic input and latency: `{ "w": 320 }`; those without a name are called by input and axis, `{ "x.3": 320 }`. */
            dims?: {
                [key: string]: number;
            };
            /**
             * @description Look for the error of each layer, for no longer than half of the evaluation before it (and 10 s). False leaves them out.
             * @default true
             */
            layer_errors?: boolean;
            latency?: components["schemas"]["LatencyOptions"];
        };
        /** @description An answer before the last layer; the last one is the network's own. */
        ExitMetrics: {
            name: string;
            /** @description What the exit reads. */
            value: string;
            /** Format: double */
            metric: number | null;
            /**
             * Format: double
             * @description Multiply-accumulates up to this answer, of those of the network.
             */
            macs_share: number;
            /**
             * Format: double
             * @description Median latency up to this answer, of the network's.
             */
            latency_share: number;
            /** @description A model that stops here; null where exits are not kept. */
            artifact: string | null;
        };
        /** @description Against the original model, on the same inputs. */
        FidelityMetrics: {
            /** Format: int64 */
            samples: number;
            /** @description `validation`: samples of the training data that were held out of the training. Now one of `evaluation`, `validation`, `calibration`, `synthetic`; more may be added. */
            data: string;
            outputs: components["schemas"]["OutputFidelity"][];
        };
        /** @description What the values are like. */
        FieldContent: {
            /**
             * Format: double
             * @description Of the finite values; null where there are none.
             */
            min: number | null;
            /** Format: double */
            max: number | null;
            /**
             * Format: int64
             * @description Values that are NaN or infinite.
             */
            non_finite: number;
            first_non_finite: components["schemas"]["NonFinitePlace"] | null;
        };
        FieldError: {
            /** @description RFC 6901 pointer into the JSON body, or `#/query/…`, `#/path/…`, `#/headers/…`. */
            pointer: string;
            code: string;
            message: string;
        };
        Float16Params: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            method: "float16";
            /**
             * @description Keep the model's inputs and outputs in float32.
             * @default true
             */
            keep_io?: boolean;
            /** @description Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused. */
            exclude_nodes?: string[];
            /** @description Operator types to leave alone, as in the uploaded model. One that it does not have is refused. */
            exclude_ops?: string[];
            /**
             * @description The method does the same for every machine. For a runtime the result is checked against its rules.
             * @default auto
             */
            target?: components["schemas"]["AnyTargetName"];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        Health: {
            /** @description Always `ok`. */
            status: string;
        };
        /** @description A value inside the student that is to become like one inside the teacher. */
        Hint: {
            teacher: string;
            student: string;
            kind: components["schemas"]["HintKind"];
            /** Format: double */
            weight: number;
            /**
             * Format: int64
             * @description Of `relation`: how many parts states are cut into.
             */
            heads?: number;
        };
        /** @enum {string} */
        HintKind: "mse" | "cosine" | "attention" | "rkd_distance" | "rkd_angle" | "relation" | "attention_map";
        /** @enum {string} */
        ImageColor: "rgb" | "bgr" | "gray";
        /** @enum {string} */
        ImageDtype: "float32" | "uint8";
        /** @enum {string} */
        ImageLayout: "NCHW" | "NHWC";
        /** @enum {string} */
        ImageResize: "stretch" | "crop" | "pad";
        /** @description For a `.zip` of images: what becomes of an image. */
        ImagesSpec: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "images";
            /** @description The model input that takes the images. */
            input: string;
            /** @description Height and width that every image is brought to. */
            size: number[];
            /** @default NCHW */
            layout?: components["schemas"]["ImageLayout"];
            /**
             * @description Order of the channels; gray has one.
             * @default rgb
             */
            color?: components["schemas"]["ImageColor"];
            /**
             * @description `stretch`: to `size`, whatever the proportions. `crop`: to the smallest size that covers `size`, then its center. `pad`: to the largest size that fits, centered, with `pad_value` around. Always bilinear with antialiasing, as Pillow and torchvision do it.
             * @default stretch
             */
            resize?: components["schemas"]["ImageResize"];
            /**
             * Format: int64
             * @description Only with `crop`: what the shorter side is scaled to before, as in resize 256, crop 224.
             */
            shorter_side?: number;
            /**
             * Format: int64
             * @description Only with `pad`; 0 (black) unless given.
             */
            pad_value?: number;
            /**
             * @description `float32`: value = (pixel · `scale` − `mean`) / `std`. `uint8`: the pixels, 0 to 255.
             * @default float32
             */
            dtype?: components["schemas"]["ImageDtype"];
            /**
             * Format: double
             * @description 1/255 unless given.
             */
            scale?: number;
            /** @description One for each channel, in the order of `color`; 0 unless given. */
            mean?: number[];
            /** @description One for each channel, in the order of `color`; 1 unless given. */
            std?: number[];
        };
        /** @description Lower and upper end of a confidence interval at 95 %. */
        Interval: number[];
        Job: {
            id: string;
            /** @description Always `job`. */
            object: string;
            /** @description The kind of job; `getCapabilities` lists those there are. */
            type: string;
            /** @description Now one of `queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`; more may be added. */
            status: string;
            /** @description What the result is a form of: the model that is quantized, the uploaded student, the teacher that a student is made from, or the first of the models that are evaluated. */
            model_id: string;
            /** @description As they were sent. */
            params: {
                [key: string]: unknown;
            };
            /** @description With every default filled in: the form of the request's `params` of that type and method. */
            effective_params: {
                [key: string]: unknown;
            };
            name: string | null;
            evaluation: components["schemas"]["EffectiveEvaluationOptions"];
            acceptance: components["schemas"]["EffectiveAcceptanceLimits"];
            metadata: components["schemas"]["Metadata"];
            /** Format: int64 */
            priority: number;
            progress: components["schemas"]["JobProgress"] | null;
            /**
             * Format: int64
             * @description 1 is next; null when the job is not waiting.
             */
            queue_position: number | null;
            /**
             * Format: int64
             * @description How often a worker has started it.
             */
            attempt: number;
            /**
             * Format: int64
             * @description How many of these attempts ended for reasons of the machine (a full disk, a killed process, a worker that was stopped). They do not count against the job.
             */
            handed_back: number;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            created_at: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            started_at: string | null;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            finished_at: string | null;
            retry_of: string | null;
            result: components["schemas"]["JobResult"] | null;
            error: components["schemas"]["JobProblem"] | null;
            /** @description Null without `deliver_to`. */
            delivery: components["schemas"]["JobDelivery"] | null;
        };
        /** @description What has become of `deliver_to`. */
        JobDelivery: {
            /** @description `waiting`: for the end of the job, or for another attempt. Now one of `waiting`, `delivered`, `failed`; more may be added. */
            status: string;
            /**
             * Format: date-time
             * @description Since when.
             */
            at: string;
            /** @description Why it was not delivered. */
            detail: string | null;
            /** @description Where it was delivered to: `s3://bucket/key`, `models:/name/4`. Null until then, and for `put`, whose address is a secret. */
            location: string | null;
        };
        /** @description What a webhook says; ask for the job to know more. */
        JobEnded: {
            /** @description Now one of `job.running`, `job.succeeded`, `job.failed`, `job.cancelled`; more may be added. */
            type: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            timestamp: string;
            data: components["schemas"]["JobEndedData"];
        };
        JobEndedData: {
            id: string;
            /** @description Always `job`. */
            object: string;
            type: string;
            /** @description Now one of `queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`; more may be added. */
            status: string;
            name: string | null;
            metadata: components["schemas"]["Metadata"];
            /**
             * Format: int64
             * @description How often a worker has started it.
             */
            attempt: number;
            model_id: string;
            result: components["schemas"]["JobEndedResult"] | null;
            metrics: components["schemas"]["JobEndedMetrics"] | null;
            urls: components["schemas"]["JobEndedUrls"];
            error: components["schemas"]["JobProblem"] | null;
        };
        /** @description Of a job that has succeeded: the start of `result.metrics`. */
        JobEndedMetrics: {
            size: components["schemas"]["SizeMetrics"];
            accuracy: components["schemas"]["AccuracyMetrics"] | null;
            latency: components["schemas"]["LatencyMetrics"];
            acceptance: components["schemas"]["AcceptanceCheck"][];
        };
        JobEndedResult: {
            model_id: string;
            accepted: boolean;
        };
        /** @description They begin with `PUBLIC_URL`; where that is not set they are paths. They need a key. */
        JobEndedUrls: {
            job: string;
            /** @description Null when there is none. */
            report: string | null;
            /** @description Of the model's file; null when there is none. */
            model: string | null;
        };
        JobEvent: {
            /**
             * Format: int64
             * @description Counts from 1 within the job; there may be gaps.
             */
            id: number;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            at: string;
            /** @description Now one of `status`, `progress`, `log`, `metric`; more may be added. */
            type: string;
            data: components["schemas"]["JobEventData"];
        };
        /** @description Which fields there are follows from the event's type. */
        JobEventData: {
            /** @description Of `status`: what the job has become. Now one of `queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`; more may be added. */
            status?: string;
            /**
             * Format: int64
             * @description Of `status` `running`: how often it has been started.
             */
            attempt?: number;
            /** @description Of `status` `failed`. */
            error?: components["schemas"]["JobProblem"];
            /** @description Of `progress`: what is being done. Of `metric`, in a pipeline: the step that it is of. */
            step?: string;
            /**
             * Format: double
             * @description Of `progress`: how much of the whole job is done, 0 to 1.
             */
            fraction?: number;
            /** @description Of `progress` and `log`: a sentence. */
            message?: string;
            /** @description Of `log`. Now one of `info`, `warn`; more may be added. */
            level?: string;
            /** @description Of `metric`, after an epoch of training: what is trained. */
            phase?: string;
            /** @description Of `metric`, where several networks are trained: which. */
            network?: string;
            /**
             * Format: int64
             * @description Of `metric`: how many there will be.
             */
            epochs?: number;
            /**
             * Format: int64
             * @description Counts from 1.
             */
            epoch?: number;
            /**
             * Format: double
             * @description Mean over the steps.
             */
            loss?: number;
            /** @description Each term of the loss, before its weight. */
            losses?: {
                [key: string]: number;
            };
            /** Format: double */
            validation_metric?: number | null;
            /** Format: double */
            learning_rate?: number;
            /** Format: double */
            samples_per_second?: number;
            /**
             * Format: int64
             * @description Of `metric`: how long the job's files took to get.
             */
            fetch_inputs_ms?: number;
            /** @description Of `metric`, after a step of a pipeline: its model. */
            model_id?: string;
            /** @description Of `metric`, after a step of a pipeline. */
            size?: components["schemas"]["SizeMetrics"];
        };
        JobEventPage: {
            data: components["schemas"]["JobEvent"][];
            /** @description Null on the last page. */
            next_cursor: string | null;
        };
        JobMetrics: {
            size: components["schemas"]["SizeMetrics"];
            fidelity: components["schemas"]["FidelityMetrics"];
            accuracy: components["schemas"]["AccuracyMetrics"] | null;
            latency: components["schemas"]["LatencyMetrics"];
            memory: components["schemas"]["MemoryMetrics"];
            acceptance: components["schemas"]["AcceptanceCheck"][];
            warnings: components["schemas"]["ResultWarning"][];
            coverage: components["schemas"]["CoverageMetrics"];
            training: components["schemas"]["TrainingMetrics"] | null;
            /** @description Of a network that is its own teacher. */
            exits: components["schemas"]["ExitMetrics"][] | null;
            /** @description Of a search; what is said beside it is of the recommended model. Null for other jobs. */
            auto: components["schemas"]["AutoMetrics"] | null;
            /** @description Of a quantization whose `target` is another runtime than onnxruntime on a CPU, of a pipeline that ends with one, and of a search whose first target is one. Null for other jobs. */
            deployment: components["schemas"]["DeploymentMetrics"] | null;
            /** @description Of an evaluation: every model, the first one by itself; what is said beside it is of the second one. Null for other jobs. */
            models: components["schemas"]["EvaluatedModel"][] | null;
            environment: components["schemas"]["MeasurementEnvironment"];
        };
        JobPage: {
            data: components["schemas"]["JobSummary"][];
            /** @description Null on the last page. */
            next_cursor: string | null;
        };
        /** @description What the job would do, of `quantize`: `method`, `weights`, `values`, `quantized_nodes`, `skipped_nodes`, `size`, `warnings`, `provisional`; of `distill`: `teacher_parameters`, `student_parameters`, `outputs`, `training_samples`, `validation_samples`, `optimizer_steps`, `networks`, `exits`; of `pipeline`: `steps`; of `evaluate`: `models`, `loads`; of `auto`: `candidates`. */
        JobPlan: {
            /** @description Now one of `quantize`, `distill`, `pipeline`, `evaluate`, `auto`; more may be added. */
            type: string;
            method?: string;
            weights?: components["schemas"]["WeightPlan"][];
            values?: components["schemas"]["ValuePlan"][];
            quantized_nodes?: components["schemas"]["NodeNote"][];
            skipped_nodes?: components["schemas"]["NodeNote"][];
            size?: components["schemas"]["PredictedSize"];
            /** @description Those that are known before anything is computed. */
            warnings?: components["schemas"]["ResultWarning"][];
            /** @description What may come out otherwise in the job, and why; empty: it does what is planned. Whatever is planned, a node that onnxruntime turns out not to run is left as it was, with the code `does_not_run`. */
            provisional?: components["schemas"]["Provision"][];
            /** Format: int64 */
            teacher_parameters?: number | null;
            /** Format: int64 */
            student_parameters?: number;
            outputs?: components["schemas"]["PairedOutputs"][];
            /** Format: int64 */
            training_samples?: number;
            /** Format: int64 */
            validation_samples?: number;
            /**
             * Format: int64
             * @description Of one run; a baseline is a second run.
             */
            optimizer_steps?: number;
            /** @description Those that are trained; of generations the first. */
            networks?: components["schemas"]["PlannedNetwork"][];
            exits?: components["schemas"]["PlannedExit"][];
            steps?: components["schemas"]["PlannedStep"][];
            models?: components["schemas"]["PlannedModel"][];
            /** @description What latency will be measured at. */
            loads?: components["schemas"]["PlannedLoad"][];
            /** @description In this order, as far as the budget goes. */
            candidates?: components["schemas"]["PlannedCandidate"][];
        };
        /** @description Why a job failed; the form of every other problem. */
        JobProblem: {
            /** @description An identifier of the kind of problem: `urn:modelpress:problem:<code>`. */
            type: string;
            title: string;
            /** Format: int64 */
            status: number;
            /** @description What went wrong this time, for a person. */
            detail: string;
            /** @description Stable and machine-readable; more may be added. Now: `invalid_request`, `unauthorized`, `forbidden`, `invalid_link`, `not_found`, `method_not_allowed`, `request_timeout`, `conflict`, `idempotency_conflict`, `precondition_failed`, `too_large`, `unsupported_media_type`, `source_failed`, `range_not_satisfiable`, `validation_failed`, `invalid_model`, `invalid_dataset`, `invalid_params`, `unsupported`, `limit_exceeded`, `rate_limited`, `quota_exceeded`, `headers_too_large`, `internal`, `unavailable`, `non_finite`, `timeout`, `out_of_memory`, `worker_crashed`, `expired`, `cancelled`. */
            code: string;
            /** @description The node, tensor or file that is at fault. */
            subject?: string;
        };
        /** @description `fraction` is of the whole job. */
        JobProgress: {
            step: string;
            /** Format: double */
            fraction: number;
            message: string;
        };
        JobRenaming: {
            name?: string | null;
            /** @description All pairs from now on: those that are not named are dropped. */
            metadata?: components["schemas"]["Metadata"];
        };
        JobRequest: components["schemas"]["QuantizeJobRequest"] | components["schemas"]["DistillJobRequest"] | components["schemas"]["PipelineJobRequest"] | components["schemas"]["EvaluateJobRequest"] | components["schemas"]["AutoJobRequest"];
        JobResult: {
            model_id: string;
            /** @description False when a limit of `acceptance` was missed. */
            accepted: boolean;
            artifacts: components["schemas"]["Artifact"][];
            metrics: components["schemas"]["JobMetrics"];
            /** @description Of a pipeline, in their order; null for other jobs. */
            steps: components["schemas"]["StepResult"][] | null;
        };
        /** @description The model that was made, and whether it is within `acceptance`. */
        JobResultSummary: {
            model_id: string;
            accepted: boolean;
        };
        /** @enum {string} */
        JobStatus: "queued" | "running" | "cancelling" | "succeeded" | "failed" | "cancelled";
        /** @description What lists tell of a job; ask for the job to know more. */
        JobSummary: {
            id: string;
            /** @description Always `job`. */
            object: string;
            /** @description The kind of job; `getCapabilities` lists those there are. */
            type: string;
            name: string | null;
            metadata: components["schemas"]["Metadata"];
            /** @description Now one of `queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`; more may be added. */
            status: string;
            /** @description What the result is a form of: the model that is quantized, the uploaded student, the teacher that a student is made from, or the first of the models that are evaluated. */
            model_id: string;
            /** Format: int64 */
            priority: number;
            progress: components["schemas"]["JobProgress"] | null;
            /**
             * Format: int64
             * @description 1 is next; null when the job is not waiting.
             */
            queue_position: number | null;
            /**
             * Format: int64
             * @description How often a worker has started it.
             */
            attempt: number;
            retry_of: string | null;
            error: components["schemas"]["JobProblem"] | null;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            created_at: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            started_at: string | null;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            finished_at: string | null;
            /** @description Of quantization, or the mode of a distillation. */
            method: string;
            result: components["schemas"]["JobResultSummary"] | null;
        };
        /** @enum {string} */
        JobType: "quantize" | "distill" | "pipeline" | "evaluate" | "auto";
        JsonlColumns: {
            /** @description In this order. Unless given: all columns that no other input and not the labels take, in the order of the file. */
            columns?: string[];
            /** @default float32 */
            dtype?: components["schemas"]["TableDtype"];
            /** @description Of one sample; one axis of all its numbers unless given. */
            shape?: number[];
        };
        /** @description For `.jsonl`: a line is a sample, a JSON object. */
        JsonlSpec: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "jsonl";
            /** @description By model input. A column is a field of the objects: a number, or, when it is the input's only one, nested lists of numbers. */
            inputs: {
                [key: string]: components["schemas"]["JsonlColumns"];
            };
            /** @description Column of the labels: class numbers, class names (their sorted list becomes `classes`), or numbers. */
            labels?: string;
        };
        LabelValue: {
            /** Format: double */
            value: number;
            /** Format: int64 */
            count: number;
            /** Format: int64 */
            first_sample: number;
        };
        /** @description Measured in one run, interleaved A B A B, after warm-up. */
        LatencyMetrics: {
            before: components["schemas"]["Timing"];
            after: components["schemas"]["Timing"];
            /**
             * Format: double
             * @description Ratio of medians.
             */
            speedup: number;
            /** @description By bootstrap over rounds; null for a single one. */
            speedup_interval: components["schemas"]["Interval"] | null;
            /** Format: int64 */
            batch_size: number;
            /** Format: int64 */
            threads: number;
            /** Format: int64 */
            runs: number;
            cpu: string;
        };
        LatencyOptions: {
            /**
             * Format: int64
             * @default 50
             */
            runs?: number;
            /**
             * Format: int64
             * @default 1
             */
            batch_size?: number;
            /**
             * Format: int64
             * @description Intra-operator threads while measuring.
             * @default 1
             */
            threads?: number;
        };
        Layer: {
            name: string;
            op: string;
            /** @description Name of the weight. */
            weight: string;
            shape: number[];
            /** Format: int64 */
            parameters: number;
            /** Format: int64 */
            bytes: number;
            dtype: components["schemas"]["DType"];
            /** Format: double */
            weight_min: number | null;
            /** Format: double */
            weight_max: number | null;
            /**
             * Format: double
             * @description Largest over smallest per-channel max|w|, dead channels left out: above 10 or so, per-tensor scales lose much.
             */
            channel_range_spread: number | null;
            /**
             * Format: int64
             * @description Channels whose weights are less than 2^-24 of the layer's largest: they add nothing. Null where weights have no channels.
             */
            dead_channels: number | null;
        };
        LayerList: {
            data: components["schemas"]["Layer"][];
            /** @description Null on the last page. */
            next_cursor: string | null;
        };
        LayerName: {
            name: string;
            op: string;
        };
        /** @enum {string} */
        LayerPrecision: "float32" | "int8_weights" | "int4_weights";
        Limits: {
            /** Format: int64 */
            max_upload_bytes: number;
            /**
             * Format: int64
             * @description Of one model.
             */
            max_files: number;
            /**
             * Format: int64
             * @description Of one API key.
             */
            max_queued_jobs: number;
            /** Format: int64 */
            job_timeout_ms: number;
            /** Format: int64 */
            queue_timeout_ms: number;
            /** Format: int64 */
            inspect_timeout_ms: number;
            /**
             * Format: int64
             * @description Of the process of one job.
             */
            memory_bytes: number;
            /**
             * Format: int64
             * @description Of all inspections that run at the same time together: two thirds for uploads.
             */
            inspect_memory_bytes: number;
            /** Format: int64 */
            job_threads: number;
            /** Format: int64 */
            requests_per_minute: number | null;
        };
        Link: {
            /** @description Absolute. It opens this file, and nothing else, without a key. */
            url: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            expires_at: string;
        };
        LinkedArtifact: {
            /**
             * @description By its name in `result.artifacts`. `report.html` is opened as a page.
             * @default report.html
             */
            artifact?: string;
            /**
             * Format: int64
             * @description At most 7 days.
             * @default 3600
             */
            expires_in_s?: number;
        };
        MeanTeacherLoss: {
            /**
             * Format: double
             * @default 1
             */
            temperature?: number;
            /**
             * Format: double
             * @description Of the average's answers.
             * @default 1
             */
            kl_weight?: number;
            /**
             * Format: double
             * @default 1
             */
            label_weight?: number;
            /** @description How outputs are compared: `kl` is for class scores and for shares, of which each is compared by itself; the others are for any numbers. Null: `kl` where it can be, else `mse` (`meaning` of the models' outputs). Unless given: `null`. */
            output_loss?: components["schemas"]["OutputLossKind"] | null;
            /**
             * Format: double
             * @default 0
             */
            label_smoothing?: number;
            /**
             * Format: int64
             * @description The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the one of `evaluation` stand in for each other where only one is given. Unless given: `null`.
             */
            ignore_label?: number | null;
        };
        MeanTeacherParams: {
            /** @constant */
            mode: "self";
            /** @description What is trained on; it must have labels. */
            dataset_id: string;
            student: components["schemas"]["UploadedStudent"];
            /** @constant */
            self_kind: "mean_teacher";
            loss?: components["schemas"]["MeanTeacherLoss"];
            training?: components["schemas"]["MeanTeacherTraining"];
            /**
             * @description Also train the network from the same start on the labels alone, without an average.
             * @default false
             */
            baseline?: boolean;
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        MeanTeacherTraining: {
            /**
             * Format: int64
             * @default 10
             */
            epochs?: number;
            /**
             * Format: int64
             * @default 128
             */
            batch_size?: number;
            /**
             * @description `sgd` has a momentum of 0.9.
             * @default adamw
             */
            optimizer?: components["schemas"]["OptimizerName"];
            /**
             * Format: double
             * @default 0.005
             */
            learning_rate?: number;
            /** @default onecycle */
            schedule?: components["schemas"]["ScheduleName"];
            /**
             * Format: int64
             * @default 0
             */
            warmup_steps?: number;
            /**
             * Format: double
             * @default 0.0001
             */
            weight_decay?: number;
            /**
             * Format: double
             * @description Largest norm of the gradient. Unless given: `null`.
             */
            gradient_clip?: number | null;
            /**
             * Format: double
             * @description Share of the samples that is held out, to keep the weights of the epoch that is best on them.
             * @default 0.1
             */
            validation_split?: number;
            /**
             * Format: double
             * @description Decay of the moving average of the weights, which teaches, is validated and exported.
             * @default 0.99
             */
            average_decay?: number;
            /** @description Keeps weights in bfloat16 while they are trained, and says how an update is rounded to it: `stochastic` up or down by chance, so that small updates are kept on average, `nearest` loses those below half a step. Null keeps float32. Unless given: `null`. */
            update_rounding?: components["schemas"]["UpdateRounding"] | null;
            /**
             * Format: int64
             * @description Stop after so many epochs without a better one. Unless given: `null`.
             */
            patience?: number | null;
            /** @description Unless given: `null`. */
            augmentation?: components["schemas"]["Augmentation"] | null;
        };
        MeasurementEnvironment: {
            onnxruntime: string;
            cpu: string;
            isa: string[];
            /** Format: int64 */
            threads: number;
            /** Format: int64 */
            seed: number;
            versions: {
                [key: string]: string;
            };
        };
        /** @description Peak resident memory of a process that loads and runs one model; `baseline_bytes` is what it takes before it loads one. */
        MemoryMetrics: {
            /** Format: int64 */
            before_peak_bytes: number;
            /** Format: int64 */
            after_peak_bytes: number;
            /** Format: int64 */
            baseline_bytes: number;
        };
        /** @description Up to 16 pairs of your own; keys up to 64 and values up to 512 characters. */
        Metadata: {
            [key: string]: string;
        };
        Method: {
            type: string;
            method: string;
            /** @description Name of the schema of `params` in the API document. */
            params_schema: string;
        };
        /** @enum {string} */
        MetricName: "top1" | "top5" | "f1_macro" | "binary_accuracy" | "binary_f1" | "mse" | "mae" | "rmse" | "none";
        Model: {
            id: string;
            /** @description Always `model`. */
            object: string;
            name: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            created_at: string;
            /** @description Of the file; of several files, of `sha256sum`'s lines for them, sorted by name. */
            sha256: string;
            /**
             * Format: int64
             * @description All files together.
             */
            size_bytes: number;
            /** @description First the `.onnx`, then its external data. */
            files: components["schemas"]["StoredFile"][];
            /** Format: int64 */
            ir_version: number;
            opset_imports: {
                [key: string]: number;
            };
            producer: string;
            inputs: components["schemas"]["ModelValue"][];
            outputs: components["schemas"]["OutputValue"][];
            /**
             * Format: int64
             * @description Of the graph and its subgraphs.
             */
            nodes: number;
            operators: {
                [key: string]: number;
            };
            /**
             * Format: int64
             * @description Elements of all weights.
             */
            parameters: number;
            /** Format: int64 */
            weight_bytes: number;
            weight_bytes_by_dtype: {
                [key: string]: number;
            };
            /**
             * Format: int64
             * @description For one sample; null where shapes are not known.
             */
            activation_bytes: number | null;
            /**
             * Format: int64
             * @description Multiply-accumulates for one sample; null where shapes are not known.
             */
            macs: number | null;
            trainable: components["schemas"]["Trainability"];
            /** @description Weights with NaN, and layers' weights with infinities: the first 100. */
            non_finite_weights: components["schemas"]["NonFiniteWeight"][];
            /** @description What is strange about the model. */
            warnings: components["schemas"]["ResultWarning"][];
            derived_from: components["schemas"]["DerivedFrom"] | null;
            metadata: components["schemas"]["Metadata"];
        };
        ModelForm: {
            /** @description Once for each file of the model. */
            file: string[];
            name?: string;
            /** @description A JSON object of strings, as in `Metadata`. */
            metadata?: string;
        };
        ModelFromSource: {
            source: components["schemas"]["ModelSource"];
            name?: string;
            metadata?: components["schemas"]["Metadata"];
        };
        /** @description A model from finished resumable uploads, which are used up by it. */
        ModelFromUploads: {
            uploads: components["schemas"]["UploadReference"][];
            name?: string;
            metadata?: components["schemas"]["Metadata"];
        };
        ModelPage: {
            data: components["schemas"]["ModelSummary"][];
            /** @description Null on the last page. */
            next_cursor: string | null;
        };
        /** @description The `.onnx`, and its external data under the names that it uses. */
        ModelSource: {
            kind: components["schemas"]["SourceKind"];
            files: components["schemas"]["SourceFile"][];
        };
        /** @description What lists tell of a model; ask for the model to know more. */
        ModelSummary: {
            id: string;
            /** @description Always `model`. */
            object: string;
            name: string;
            /**
             * Format: date-time
             * @description RFC 3339, UTC.
             */
            created_at: string;
            /** @description Of the file; of several files, of `sha256sum`'s lines for them, sorted by name. */
            sha256: string;
            /**
             * Format: int64
             * @description All files together.
             */
            size_bytes: number;
            /**
             * Format: int64
             * @description Of the graph and its subgraphs.
             */
            nodes: number;
            /**
             * Format: int64
             * @description Elements of all weights.
             */
            parameters: number;
            /** Format: int64 */
            weight_bytes: number;
            derived_from: components["schemas"]["DerivedFrom"] | null;
            metadata: components["schemas"]["Metadata"];
        };
        ModelValue: {
            name: string;
            /** @description Null for what is no tensor. */
            dtype: components["schemas"]["DType"] | null;
            /** @description What it is when it is no tensor: `sequence(map(int64, float32))`. */
            type?: string;
            /** @description A string is a symbolic dimension, null an unknown one; null instead of a list: unknown rank. */
            shape: ((number | string) | null)[] | null;
        };
        /** @description The nearest model that is better in the objective, or else in quality. */
        NextBetter: {
            candidate: string;
            model_id: string | null;
            message: string;
        };
        /** @description Why a node was, or was not, touched. */
        NodeNote: {
            name: string;
            op: string;
            /** @description Stable; the guide to codes says what causes each. Now one of `quantized`, `dynamic_matmul`, `dynamic_lstm`, `matmulnbits`, `gather_block_quantized`, `gather_codes`, `dequantize`, `dequantize_matmul`, `stored_codes`, `float16`, `fused`, `removed`, `rewritten`, `widened`, `channels_scaled`, `rounding_lost`, `excluded`, `asked`, `already_quantized`, `already_float16`, `does_not_run`, `unsupported_op`, `unsupported_weight`, `no_gain`, `shared_weight`, `conv_needs_calibration`, `weight_not_constant`, `weight_not_float32`, `weight_rank`, `empty_weight`, `weight_is_shared`, `non_finite_weight`, `weight_overflow`, `weight_underflow`, `bias_not_constant`, `gemm_form`, `not_affine`, `not_finite`, `not_float32`, `constant`, `constant_operand`, `table`, `hard_sigmoid_slope`, `interpolation`, `indices`, `slower`, `float_operands`, `float_neighbours`, `float_inputs`, `float_outputs`, `float_island`, `not_reached`, `non_finite`, `stretched`, `kept_for_accuracy`, `float32_pattern`, `exact`, `mask`, `range`, `squares`, `coordinates`, `bits`, `no_float16`, `does_not_load`, `no_float32`, `unknown_type`, `unknown_operator`, `not_audited`, `dequantized_every_run`, `no_integer_kernel`, `different_scales`, `float_input`, `float_output`, `not_fused`, `gptq`, `gptq_no_gain`, `gptq_unseen`, `gptq_failed`, `gptq_unsupported`, `adaround`, `adaround_no_gain`, `adaround_unseen`, `adaround_failed`, `adaround_unsupported`, `stochastic`, `stochastic_no_gain`, `stochastic_unseen`, `stochastic_failed`, `stochastic_unsupported`; more may be added. */
            code: string;
            message: string;
        };
        /** @description The first of them. */
        NonFiniteElement: {
            index: number[];
            /** @description Now one of `nan`, `inf`, `-inf`; more may be added. */
            value: string;
        };
        /** @description The first of them. */
        NonFinitePlace: {
            /** Format: int64 */
            sample: number;
            /** @description Now one of `nan`, `inf`, `-inf`; more may be added. */
            value: string;
        };
        NonFiniteWeight: {
            name: string;
            /** @description The nodes that multiply with it or look rows up in it; none of a bias or a gain. */
            layers: components["schemas"]["LayerName"][];
            shape: number[];
            /**
             * Format: int64
             * @description Values that are NaN or infinite.
             */
            count: number;
            first: components["schemas"]["NonFiniteElement"];
        };
        OfflineDistillParams: {
            /** @constant */
            mode: "offline";
            /** @description Any model that runs: it need not be trainable. Null, with `kl_weight` 0, is plain training. Unless given: `null`. */
            teacher_model_id?: string | null;
            /** @description What is trained on. */
            dataset_id: string;
            student: components["schemas"]["UploadedStudent"] | components["schemas"]["DerivedStudent"];
            loss?: components["schemas"]["DistillLoss"];
            training?: components["schemas"]["Training"];
            /**
             * @description Also train the same student from the same start on the labels alone, to measure what the teacher adds.
             * @default false
             */
            baseline?: boolean;
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        OnlineDistillParams: {
            /** @constant */
            mode: "online";
            /** @description What is trained on; it must have labels. */
            dataset_id: string;
            /** @description A teacher that is trained along and must be trainable. Null: peers teach each other. Unless given: `null`. */
            teacher_model_id?: string | null;
            student: components["schemas"]["UploadedStudent"] | components["schemas"]["DerivedStudent"];
            /**
             * Format: int64
             * @description How many networks teach each other: the student, `peer_students`, and for the rest copies of the student with weights of their own. Null is 2, or as many as `peer_students` make; with a teacher it must be null. Unless given: `null`.
             */
            peers?: number | null;
            /** @description Peers of other architectures, or of the same from other weights. */
            peer_students?: components["schemas"]["UploadedStudent"][];
            /**
             * @description `simultaneous`: all networks are updated from the same values in one step. `alternating`: in turn, each from what the others answer by then.
             * @default simultaneous
             */
            update?: components["schemas"]["PeerUpdate"];
            loss?: components["schemas"]["OnlineLoss"];
            training?: components["schemas"]["Training"];
            /**
             * @description Also train the student from the same start on the labels alone, to measure what the others add.
             * @default false
             */
            baseline?: boolean;
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        OnlineLoss: {
            /**
             * Format: double
             * @default 1
             */
            temperature?: number;
            /**
             * Format: double
             * @description Of what a network learns from the others.
             * @default 1
             */
            kl_weight?: number;
            /**
             * Format: double
             * @description Of the labels, for every network.
             * @default 1
             */
            label_weight?: number;
            /**
             * Format: double
             * @description Of what the teacher learns from the student. For peers it must be 0: they all learn by `kl_weight`.
             * @default 0
             */
            teacher_kl_weight?: number;
            /** @description How outputs are compared: `kl` is for class scores and for shares, of which each is compared by itself; the others are for any numbers. Null: `kl` where it can be, else `mse` (`meaning` of the models' outputs). Unless given: `null`. */
            output_loss?: components["schemas"]["OutputLossKind"] | null;
            /**
             * Format: double
             * @default 0
             */
            label_smoothing?: number;
            /**
             * Format: int64
             * @description The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the one of `evaluation` stand in for each other where only one is given. Unless given: `null`.
             */
            ignore_label?: number | null;
        };
        /** @enum {string} */
        OptimizerName: "sgd" | "adam" | "adamw";
        OutputFidelity: {
            name: string;
            /**
             * Format: double
             * @description 10·log10(Σx² / Σ(x−y)²); null when identical.
             */
            sqnr_db: number | null;
            /** Format: double */
            cosine: number;
            /**
             * Format: double
             * @description Of the original; null where it gives no finite number.
             */
            min_value: number | null;
            /**
             * Format: double
             * @description Of the original; null where it gives no finite number.
             */
            max_value: number | null;
            /** Format: double */
            max_abs_error: number;
            /** Format: double */
            mean_abs_error: number;
            /**
             * Format: double
             * @description Share of positions with the same class, the largest of its scores; of integer outputs, share of equal elements; of labels that are told one by one (shares of a Sigmoid), of those that either model says yes to (above a half), the share that both do. Null for other outputs, and where there is no yes.
             */
            top1_agreement: number | null;
            /** @description Of `sqnr_db`, over runs; null when identical. */
            sqnr_interval_db: components["schemas"]["Interval"] | null;
            top1_agreement_interval: components["schemas"]["Interval"] | null;
            /**
             * Format: int64
             * @description Elements that are NaN or infinite in only one of the two models.
             */
            non_finite: number;
            /**
             * Format: int64
             * @description Runs in which the output had another shape and was not compared.
             */
            shape_mismatches: number;
        };
        /** @enum {string} */
        OutputLossKind: "kl" | "mse" | "huber" | "cosine";
        /** @description What the numbers are: scores of classes to choose from, shares (each a number from 0 to 1 by itself), or any others. Missing for what is no tensor of floats, and of models that earlier versions added. */
        OutputMeaning: {
            /** @description Now one of `class_scores`, `shares`, `numbers`; more may be added. */
            kind: string;
            /**
             * Format: int64
             * @description Where classes lie, if that is what they are; null: along the last axis that is not of 1.
             */
            class_axis: number | null;
            /** @description Whether the operators say so (a Softmax, a Sigmoid); otherwise it is taken to be so by shape and name. */
            evident: boolean;
        };
        OutputPair: {
            teacher: string;
            student: string;
        };
        OutputValue: {
            name: string;
            /** @description Null for what is no tensor. */
            dtype: components["schemas"]["DType"] | null;
            /** @description What it is when it is no tensor: `sequence(map(int64, float32))`. */
            type?: string;
            /** @description A string is a symbolic dimension, null an unknown one; null instead of a list: unknown rank. */
            shape: ((number | string) | null)[] | null;
            meaning?: components["schemas"]["OutputMeaning"];
        };
        OwnTeacherLoss: {
            /**
             * Format: double
             * @default 3
             */
            temperature?: number;
            /**
             * Format: double
             * @description Of the last layer's answers, for each exit.
             * @default 0.1
             */
            kl_weight?: number;
            /**
             * Format: double
             * @description Of the labels, for each exit; the last layer's is 1.
             * @default 0.9
             */
            label_weight?: number;
            /**
             * Format: double
             * @description Of the last layer's features, for each exit but the first.
             * @default 0.03
             */
            feature_weight?: number;
            /**
             * Format: double
             * @default 0
             */
            label_smoothing?: number;
            /**
             * Format: int64
             * @description The label of what has none (often -100 or -1): it counts neither in losses nor in metrics. In a distillation the one of `loss` and the one of `evaluation` stand in for each other where only one is given. Unless given: `null`.
             */
            ignore_label?: number | null;
        };
        OwnTeacherParams: {
            /** @constant */
            mode: "self";
            /** @description What is trained on; it must have labels. */
            dataset_id: string;
            student: components["schemas"]["UploadedStudent"];
            /** @constant */
            self_kind: "be_your_own_teacher";
            /**
             * Format: int64
             * @description How many exits at the most, at the ends of stages.
             * @default 3
             */
            exits?: number;
            /** @description The values that exits are to read, instead of a number of them. Unless given: `null`. */
            exit_values?: string[] | null;
            /**
             * @description Keep the exits as further outputs `exit_1`, `exit_2`, …; otherwise they are dropped after training.
             * @default false
             */
            keep_exits?: boolean;
            loss?: components["schemas"]["OwnTeacherLoss"];
            training?: components["schemas"]["Training"];
            /**
             * @description Also train the network from the same start without exits, to measure what they add.
             * @default false
             */
            baseline?: boolean;
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        PairedOutputs: {
            teacher: string;
            student: string;
        };
        ParquetColumns: {
            /** @description In this order. Unless given: all columns that no other input and not the labels take, in the order of the file. */
            columns?: string[];
            /** @default float32 */
            dtype?: components["schemas"]["TableDtype"];
            /** @description Of one sample; one axis of all its numbers unless given. */
            shape?: number[];
        };
        /** @description For `.parquet`: a row is a sample. */
        ParquetSpec: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            kind: "parquet";
            /** @description By model input. A column holds a number a row, or, when it is the input's only one, a list of numbers, nested or not. */
            inputs: {
                [key: string]: components["schemas"]["ParquetColumns"];
            };
            /** @description Column of the labels: class numbers, class names (their sorted list becomes `classes`), or numbers. */
            labels?: string;
        };
        /** @enum {string} */
        PeerUpdate: "simultaneous" | "alternating";
        PipelineJobRequest: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            type: "pipeline";
            /** @description What the first step works on. Null when it is a distillation that names its models itself. Unless given: `null`. */
            model_id?: string | null;
            params: components["schemas"]["PipelineParams"];
            evaluation?: components["schemas"]["EvaluationOptions"];
            acceptance?: components["schemas"]["AcceptanceLimits"];
            /** @description Unless given: `null`. */
            name?: string | null;
            metadata?: components["schemas"]["Metadata"];
            /**
             * Format: int64
             * @description 1 runs first.
             * @default 5
             */
            priority?: number;
            /** @description Unless given: `null`. */
            webhook?: components["schemas"]["WebhookTarget"] | null;
            /** @description Unless given: `null`. */
            deliver_to?: components["schemas"]["DeliveryTarget"] | null;
        };
        PipelineParams: {
            /** @description In this order; each works on the model that the one before has made. */
            steps: components["schemas"]["PipelineStep"][];
        };
        PipelineStep: components["schemas"]["QuantizeStep"] | components["schemas"]["DistillStep"];
        PlannedCandidate: {
            name: string;
            /** @description Posted as a job, it makes the same bytes. */
            spec: {
                [key: string]: unknown;
            };
        };
        PlannedExit: {
            name: string;
            value: string;
            /** Format: double */
            macs_share: number;
        };
        PlannedLoad: {
            /** Format: int64 */
            batch_size: number;
            /** Format: int64 */
            threads: number;
        };
        PlannedModel: {
            model_id: string;
            /** Format: int64 */
            size_bytes: number;
            /** Format: int64 */
            parameters: number;
        };
        PlannedNetwork: {
            name: string;
            /** Format: int64 */
            parameters: number;
        };
        PlannedStep: {
            name: string;
            plan: components["schemas"]["StepPlan"];
        };
        PredictedSize: {
            /** Format: int64 */
            before_bytes: number;
            /** Format: int64 */
            predicted_bytes: number;
            /** Format: double */
            ratio: number;
        };
        Problem: {
            /** @description An identifier of the kind of problem: `urn:modelpress:problem:<code>`. */
            type: string;
            title: string;
            /** Format: int64 */
            status: number;
            /** @description What went wrong this time, for a person. */
            detail: string;
            /** @description Stable and machine-readable; more may be added. Now: `invalid_request`, `unauthorized`, `forbidden`, `invalid_link`, `not_found`, `method_not_allowed`, `request_timeout`, `conflict`, `idempotency_conflict`, `precondition_failed`, `too_large`, `unsupported_media_type`, `source_failed`, `range_not_satisfiable`, `validation_failed`, `invalid_model`, `invalid_dataset`, `invalid_params`, `unsupported`, `limit_exceeded`, `rate_limited`, `quota_exceeded`, `headers_too_large`, `internal`, `unavailable`, `non_finite`, `timeout`, `out_of_memory`, `worker_crashed`, `expired`, `cancelled`. */
            code: string;
            /** @description Name it when you ask for help: the log has it too. */
            request_id: string;
            /** @description The node, tensor or file that is at fault. */
            subject?: string;
            /** @description Every field that is wrong. */
            errors?: components["schemas"]["FieldError"][];
        };
        /** @description Why entries of a plan may come out otherwise in the job. */
        Provision: {
            /** @description Now one of `ranges_from_few`, `measured_choice`, `accuracy`, `earlier_step`; more may be added. */
            code: string;
            message: string;
            /** @description Those that it may concern; none: any. */
            nodes: string[];
        };
        /** @enum {string} */
        QatAlgorithm: "lsq" | "pact";
        /** @description Weights of 4 and 2 bits are stored in 4 and 2, and turned into 8 when the model is loaded: integer kernels read 8. So do activations of 4. */
        QatBits: {
            /**
             * @default 8
             * @enum {integer}
             */
            weights?: 8 | 4 | 2;
            /** @description Null leaves activations, and the arithmetic, in float. Unless given: `8`. */
            activations?: (8 | 4) | null;
        };
        /** @enum {string} */
        QatCalibration: "minmax" | "moving_average" | "percentile" | "entropy" | "mse";
        QatParams: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            method: "qat";
            /** @description What is calibrated and trained on. */
            dataset_id: string;
            bits?: components["schemas"]["QatBits"];
            /**
             * @description How the scales of activations are learned. `lsq` (Esser et al. 2020): from what rounding and clipping do to the loss. `pact` (Choi et al. 2018): from what clipping does, with a penalty on wide ranges. Those of weights are learned by `lsq`.
             * @default lsq
             */
            algorithm?: components["schemas"]["QatAlgorithm"];
            /** @description Whose outputs are learned: `self` is the float model itself, which needs no labels; or the id of a model; null for none. Unless given: `"self"`. */
            teacher?: string | null;
            /** @description When it is not given: the outputs of the teacher by `mse`; without a teacher, the labels. */
            loss?: components["schemas"]["DistillLoss"];
            /**
             * Format: int64
             * @description Instead of `training.epochs`. Unless given: `null`.
             */
            epochs?: number | null;
            training?: components["schemas"]["QatTraining"];
            /**
             * Format: int64
             * @description How many samples are calibrated on first.
             * @default 128
             */
            samples?: number;
            /**
             * @description How weights of 4 and 2 bits become integers before they are trained. `nearest` looks at weights alone. The others look at samples, and a layer keeps what they make of it only where its output is nearer to the float model's on held-out samples: `adaround` learns for each weight whether up or down is better, given what the layers before it make once they are quantized (of at most 32 runs); `gptq` rounds one input after the other and lets the rest make up for it; `stochastic` draws `candidates` times at random.
             * @default nearest
             */
            rounding?: components["schemas"]["RoundingName"];
            /**
             * Format: int64
             * @description Draws for `stochastic`, of which each layer keeps the best; 16 when it is not given.
             */
            candidates?: number;
            /** @default mse */
            calibration?: components["schemas"]["QatCalibration"];
            /**
             * Format: double
             * @description Share of the values that `percentile` keeps.
             * @default 99.999
             */
            percentile?: number;
            /** @description Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused. */
            exclude_nodes?: string[];
            /** @description Operator types to leave alone, as in the uploaded model. One that it does not have is refused. */
            exclude_ops?: string[];
            /**
             * @description What the model will run on: a kind of processor with onnxruntime, where `auto` is the one the worker runs on; or another runtime, whose rules the result is made by and checked against (`metrics.deployment`).
             * @default auto
             */
            target?: components["schemas"]["TargetName"];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        QatTraining: {
            /**
             * Format: int64
             * @default 3
             */
            epochs?: number;
            /**
             * Format: int64
             * @default 64
             */
            batch_size?: number;
            /**
             * @description `sgd` has a momentum of 0.9.
             * @default adamw
             */
            optimizer?: components["schemas"]["OptimizerName"];
            /**
             * Format: double
             * @description When it is not given: 0.0001 for weights of 8 bits, 0.001 for fewer, which have further to go.
             */
            learning_rate?: number;
            /** @default cosine */
            schedule?: components["schemas"]["ScheduleName"];
            /**
             * Format: int64
             * @default 0
             */
            warmup_steps?: number;
            /**
             * Format: double
             * @default 0
             */
            weight_decay?: number;
            /**
             * Format: double
             * @description Largest norm of the gradient. Unless given: `null`.
             */
            gradient_clip?: number | null;
            /**
             * Format: double
             * @description Share of the samples that is held out, to keep the weights of the epoch that is best on them.
             * @default 0.1
             */
            validation_split?: number;
            /**
             * Format: double
             * @description Decay of a moving average of the weights, which is then validated and exported. Unless given: `null`.
             */
            average_decay?: number | null;
            /** @description Keeps weights in bfloat16 while they are trained, and says how an update is rounded to it: `stochastic` up or down by chance, so that small updates are kept on average, `nearest` loses those below half a step. Null keeps float32. Unless given: `null`. */
            update_rounding?: components["schemas"]["UpdateRounding"] | null;
            /**
             * Format: int64
             * @description Stop after so many epochs without a better one. Unless given: `null`.
             */
            patience?: number | null;
            /** @description Unless given: `null`. */
            augmentation?: components["schemas"]["Augmentation"] | null;
        };
        QuantizeJobRequest: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            type: "quantize";
            model_id: string;
            params: components["schemas"]["QuantizeParams"];
            evaluation?: components["schemas"]["EvaluationOptions"];
            acceptance?: components["schemas"]["AcceptanceLimits"];
            /** @description Unless given: `null`. */
            name?: string | null;
            metadata?: components["schemas"]["Metadata"];
            /**
             * Format: int64
             * @description 1 runs first.
             * @default 5
             */
            priority?: number;
            /** @description Unless given: `null`. */
            webhook?: components["schemas"]["WebhookTarget"] | null;
            /** @description Unless given: `null`. */
            deliver_to?: components["schemas"]["DeliveryTarget"] | null;
        };
        QuantizeParams: components["schemas"]["SimplifyParams"] | components["schemas"]["Float16Params"] | components["schemas"]["DynamicParams"] | components["schemas"]["StaticParams"] | components["schemas"]["WeightOnlyParams"] | components["schemas"]["QatParams"];
        /** @description Compresses the model of the step before. */
        QuantizeStep: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            type: "quantize";
            /** @description What reports and artifacts of the step are called. When it is not given: `step-1`, `step-2`, … */
            name?: string;
            params: components["schemas"]["QuantizeParams"];
        };
        Readiness: {
            /** @description Always `ready`. */
            status: string;
            /**
             * Format: int64
             * @description Live worker processes that take jobs.
             */
            workers: number;
            /**
             * Format: int64
             * @description Live worker processes that take none, for example because their disk is full; their logs and `/metrics` say why.
             */
            refusing_workers: number;
        };
        Renaming: {
            name?: string;
            /** @description All pairs from now on: those that are not named are dropped. */
            metadata?: components["schemas"]["Metadata"];
        };
        /** @description What was not asked about and should be known. The guide to codes says what causes each, and what its `value` is. */
        ResultWarning: {
            /** @description Now one of `slower_than_original`, `larger_than_original`, `shapes_differ`, `nothing_quantized`, `already_quantized`, `low_fidelity`, `blank_output`, `few_samples`, `drop_within_noise`, `more_bits_stored`, `choice_within_noise`, `training_gained_nothing`, `differs_from_simulation`, `outputs_not_compared`, `unused_fields`, `unused_dims`, `labels_not_used`, `labels_converted`, `labels_ignored`, `float16_range`, `non_finite_data`, `target_not_reached`, `target_rules_broken`, `target_does_not_run`, `target_not_measured`, `constant_data`, `non_finite_weights`, `layer_errors_incomplete`, `list_shortened`; more may be added. */
            code: string;
            message: string;
            /** Format: double */
            value: number;
        };
        /** @enum {string} */
        RoundingName: "nearest" | "adaround" | "stochastic" | "gptq";
        RuleBreak: {
            name: string;
            message: string;
        };
        /** @enum {string} */
        ScheduleName: "constant" | "step" | "cosine" | "onecycle";
        /** @enum {string} */
        SearchedMethod: "simplify" | "float16" | "dynamic" | "static" | "weight_only" | "qat" | "distill";
        SimplifyParams: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            method: "simplify";
            /** @description Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused. */
            exclude_nodes?: string[];
            /** @description Operator types to leave alone, as in the uploaded model. One that it does not have is refused. */
            exclude_ops?: string[];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        SizeMetrics: {
            /** Format: int64 */
            before_bytes: number;
            /** Format: int64 */
            after_bytes: number;
            /** Format: double */
            ratio: number;
        };
        SourceFile: {
            /** @description `https`: at a host that the operator has allowed; presigned ones too. `s3`: `s3://bucket/key`, the key as it is, in a bucket that the operator has allowed. `mlflow`: `models:/name/3` or `models:/name@alias`, a version of a registered model that the operator has allowed: its ONNX with all of its files. `huggingface`: `hf://org/name@revision/path`, a file of a repository that the operator has allowed (`hf://datasets/org/name/path` of datasets; without a revision the newest of `main`). */
            url: string;
            /** @description As the address ends after its last slash, when it is not given. */
            filename?: string;
            /** @description What the file must be; another one is refused. */
            sha256?: string;
        };
        /** @enum {string} */
        SourceKind: "https" | "s3" | "mlflow" | "huggingface";
        StaticParams: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            method: "static";
            /** @description Samples of what the model will see: the ranges of activations are taken from them. */
            dataset_id: string;
            /**
             * Format: int64
             * @description How many of them, drawn by the seed.
             * @default 128
             */
            samples?: number;
            /**
             * @description How the range of an activation follows from its values: all of them, a moving average of each sample's range, a share of the values, the least loss of information, or the least squared error. `auto` is the last, unless its outputs have an SQNR below 10 dB on some samples: then all are tried, and the one whose outputs are nearest to the float model's is taken.
             * @default auto
             */
            calibration?: components["schemas"]["CalibrationMethod"];
            /**
             * Format: double
             * @description Share of the values that `percentile` keeps.
             * @default 99.999
             */
            percentile?: number;
            /**
             * @description `auto` is what the target computes fastest with: uint8 on x64.
             * @default auto
             */
            activation_dtype?: components["schemas"]["ActivationDtype"];
            /**
             * @description One scale for each output channel of a weight instead of one for each weight.
             * @default true
             */
            per_channel?: boolean;
            /**
             * @description Of the weights that are quantized. Those of 4 and 2 are stored in 4 and 2, and turned into 8, or into floats where a layer computes in float, when the model is loaded: the file is smaller, the speed is the same. `more_bits_stored` warns of what has no such form.
             * @default 8
             * @enum {integer}
             */
            weight_bits?: 8 | 4 | 2;
            /**
             * @description How weights of layers without groups become integers. `nearest` looks at weights alone. The others look at samples, and a layer keeps what they make of it only where its output is nearer to the float model's on held-out samples: `adaround` learns for each weight whether up or down is better, given what the layers before it make once they are quantized (of at most 32 runs); `gptq` rounds one input after the other and lets the rest make up for it; `stochastic` draws `candidates` times at random.
             * @default nearest
             */
            rounding?: components["schemas"]["RoundingName"];
            /**
             * Format: int64
             * @description Draws for `stochastic`, of which each layer keeps the best; 16 when it is not given.
             */
            candidates?: number;
            /** @description Scale channels between layers against each other. `auto`: where it is measured to help; true: everywhere, by the weights alone. Unless given: `"auto"`. */
            equalize?: "auto" | boolean;
            /** @description Move outliers of activations into the weights behind a normalization. `auto`: where and as far as it is measured to help. Unless given: `"auto"`. */
            smooth_quant_alpha?: ("auto" | number) | null;
            /**
             * @description Make up for the mean error of each layer, if it is measured to help.
             * @default true
             */
            bias_correction?: boolean;
            /**
             * @description Leave in float what is slower in 8 bits (small layers, depthwise convolutions); its weights are still stored in `weight_bits`. Where `target` is the machine that runs the job, kernels are measured there; for `x64-avx2` on another machine a table of costs predicts; for `openvino` depthwise convolutions stay in float, weights and all; for other targets all that can is computed in 8 bits. What was measured is kept for a day, so that the same job makes the same bytes.
             * @default true
             */
            float_where_slower?: boolean;
            /** @description What single nodes compute in instead of 8 bits, by their names in the uploaded model: float, with weights as they are (`float32`) or stored in 8 or 4 bits (`int8_weights`, `int4_weights`). A name that no node has is refused. With `float_where_slower: false` this says all that a report says about which nodes are in float, and makes the same bytes on every machine. */
            layers?: {
                [key: string]: components["schemas"]["LayerPrecision"];
            };
            /**
             * Format: double
             * @description Keep layers in float until the metric of `evaluation` drops no further, on labelled samples of the dataset that calibration has not seen. Unless given: `null`.
             */
            max_metric_drop?: number | null;
            /** @description The same without labels: until the signal to noise ratio of the outputs is this good. `auto`: layers are left in float only for a result below 10 dB, measured on a few samples, until it is above 20 dB; null: none are. Unless given: `"auto"`. */
            min_sqnr_db?: ("auto" | number) | null;
            /**
             * Format: int64
             * @description Models that may be tried for that.
             * @default 24
             */
            max_trials?: number;
            /** @description Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused. */
            exclude_nodes?: string[];
            /** @description Operator types to leave alone, as in the uploaded model. One that it does not have is refused. */
            exclude_ops?: string[];
            /**
             * @description What the model will run on: a kind of processor with onnxruntime, where `auto` is the one the worker runs on; or another runtime, whose rules the result is made by and checked against (`metrics.deployment`).
             * @default auto
             */
            target?: components["schemas"]["TargetName"];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        /** @description What the job would do, of `quantize`: `method`, `weights`, `values`, `quantized_nodes`, `skipped_nodes`, `size`, `warnings`, `provisional`; of `distill`: `teacher_parameters`, `student_parameters`, `outputs`, `training_samples`, `validation_samples`, `optimizer_steps`, `networks`, `exits`. */
        StepPlan: {
            /** @description Now one of `quantize`, `distill`; more may be added. */
            type: string;
            method?: string;
            weights?: components["schemas"]["WeightPlan"][];
            values?: components["schemas"]["ValuePlan"][];
            quantized_nodes?: components["schemas"]["NodeNote"][];
            skipped_nodes?: components["schemas"]["NodeNote"][];
            size?: components["schemas"]["PredictedSize"];
            /** @description Those that are known before anything is computed. */
            warnings?: components["schemas"]["ResultWarning"][];
            /** @description What may come out otherwise in the job, and why; empty: it does what is planned. Whatever is planned, a node that onnxruntime turns out not to run is left as it was, with the code `does_not_run`. */
            provisional?: components["schemas"]["Provision"][];
            /** Format: int64 */
            teacher_parameters?: number | null;
            /** Format: int64 */
            student_parameters?: number;
            outputs?: components["schemas"]["PairedOutputs"][];
            /** Format: int64 */
            training_samples?: number;
            /** Format: int64 */
            validation_samples?: number;
            /**
             * Format: int64
             * @description Of one run; a baseline is a second run.
             */
            optimizer_steps?: number;
            /** @description Those that are trained; of generations the first. */
            networks?: components["schemas"]["PlannedNetwork"][];
            exits?: components["schemas"]["PlannedExit"][];
        };
        /** @description Of a step: its model against the one that it was fed. */
        StepResult: {
            name: string;
            type: string;
            model_id: string;
            /**
             * Format: int64
             * @description Of the model that it has made.
             */
            parameters: number;
            metrics: components["schemas"]["JobMetrics"];
        };
        StoredFile: {
            name: string;
            /** Format: int64 */
            size_bytes: number;
            /** @description Lower-case hexadecimal. */
            sha256: string;
        };
        /** @enum {string} */
        StudentInit: "keep" | "reinitialize";
        /** @enum {string} */
        TableDtype: "bool" | "int8" | "uint8" | "int16" | "uint16" | "int32" | "uint32" | "int64" | "uint64" | "float16" | "float32" | "float64";
        Target: {
            name: string;
            /** @description Instruction set extensions it counts on. */
            isa: string[];
            description: string;
        };
        /** @enum {string} */
        TargetName: "auto" | "x64-vnni" | "x64-avx2" | "arm64" | "portable" | "web" | "openvino" | "tensorrt" | "qnn";
        TargetRule: {
            rule: string;
            says: string;
            /** @description The public page that says so. */
            source: string;
            holds: boolean;
            broken: components["schemas"]["RuleBreak"][];
        };
        /** @enum {string} */
        TeacherLossKind: "kl" | "dkd" | "mse" | "huber" | "cosine";
        Timing: {
            /** Format: double */
            p50_ms: number;
            /** Format: double */
            p90_ms: number;
            /** Format: double */
            mean_ms: number;
        };
        /** @description Whether it can be trained; if not, why, and which node or tensor. */
        Trainability: {
            ok: boolean;
            subject: string | null;
            message: string | null;
        };
        TrainedNetwork: {
            /** @description `student`, `teacher`, `peer_1`, `generation_1`, … */
            name: string;
            /** Format: int64 */
            parameters: number;
            history: components["schemas"]["EpochRecord"][];
            /** Format: int64 */
            best_epoch: number;
            /**
             * Format: double
             * @description Of the best epoch, on the samples held out.
             */
            validation_metric: number | null;
            /** Format: double */
            before_metric: number | null;
            /** Format: double */
            metric: number | null;
            artifact: string;
        };
        Training: {
            /**
             * Format: int64
             * @default 10
             */
            epochs?: number;
            /**
             * Format: int64
             * @default 128
             */
            batch_size?: number;
            /**
             * @description `sgd` has a momentum of 0.9.
             * @default adamw
             */
            optimizer?: components["schemas"]["OptimizerName"];
            /**
             * Format: double
             * @default 0.005
             */
            learning_rate?: number;
            /** @default onecycle */
            schedule?: components["schemas"]["ScheduleName"];
            /**
             * Format: int64
             * @default 0
             */
            warmup_steps?: number;
            /**
             * Format: double
             * @default 0.0001
             */
            weight_decay?: number;
            /**
             * Format: double
             * @description Largest norm of the gradient. Unless given: `null`.
             */
            gradient_clip?: number | null;
            /**
             * Format: double
             * @description Share of the samples that is held out, to keep the weights of the epoch that is best on them.
             * @default 0.1
             */
            validation_split?: number;
            /**
             * Format: double
             * @description Decay of a moving average of the weights, which is then validated and exported. Unless given: `null`.
             */
            average_decay?: number | null;
            /** @description Keeps weights in bfloat16 while they are trained, and says how an update is rounded to it: `stochastic` up or down by chance, so that small updates are kept on average, `nearest` loses those below half a step. Null keeps float32. Unless given: `null`. */
            update_rounding?: components["schemas"]["UpdateRounding"] | null;
            /**
             * Format: int64
             * @description Stop after so many epochs without a better one. Unless given: `null`.
             */
            patience?: number | null;
            /** @description Unless given: `null`. */
            augmentation?: components["schemas"]["Augmentation"] | null;
        };
        TrainingMetrics: {
            history: components["schemas"]["EpochRecord"][];
            /**
             * Format: int64
             * @description The epoch that the student's weights are from; 0: none was better than the start (`qat`).
             */
            best_epoch: number;
            /** @description A metric of `evaluation.metric` against labels; without labels `teacher_agreement` or `teacher_mse`. */
            metric: string | null;
            /** Format: int64 */
            metric_samples: number;
            /** Format: double */
            teacher_metric: number | null;
            /** Format: double */
            student_before_metric: number | null;
            /** Format: double */
            student_metric: number | null;
            /**
             * Format: double
             * @description Of the same student, trained without the teacher.
             */
            baseline_metric: number | null;
            baseline_history: components["schemas"]["EpochRecord"][] | null;
            /** Format: double */
            samples_per_second: number;
            /** @description All that were trained, baselines left out. */
            networks: components["schemas"]["TrainedNetwork"][];
            /** @description The network that is the result; `average` is all of them together. */
            chosen: string;
            /**
             * Format: double
             * @description Of the mean of all networks' (or exits') answers; null where there is only one.
             */
            ensemble_metric: number | null;
        };
        /** @enum {string} */
        UpdateRounding: "nearest" | "stochastic";
        UploadReference: {
            /** @description The last part of the finished upload's URL. */
            upload_id: string;
            filename: string;
        };
        UploadedStudent: {
            model_id: string;
            /**
             * @description `keep`: start from the weights in the file. `reinitialize`: draw new ones from the seed.
             * @default keep
             */
            init?: components["schemas"]["StudentInit"];
        };
        /** @description A value that is rounded while the model runs. */
        ValuePlan: {
            name: string;
            /** @description Now one of `uint8`, `int8`; more may be added. */
            dtype: string;
        };
        Versions: {
            modelpress: string;
            node: string;
            onnxruntime: string;
        };
        /** @enum {string} */
        WebhookEvent: "job.running" | "job.succeeded" | "job.failed" | "job.cancelled";
        WebhookReceiver: {
            /** @description As in `webhook.url` of the jobs, to the letter. */
            url: string;
        };
        WebhookSecret: {
            url: string;
            /** @description `whsec_` and base64, as Standard Webhooks has it. It is not told again. */
            secret: string;
            /**
             * Format: date-time
             * @description Until then what is sent is signed with the secret before as well; null when there was none.
             */
            previous_valid_until: string | null;
        };
        /** @description Whom to tell what becomes of the job, by the Standard Webhooks specification. */
        WebhookTarget: {
            /** @description https, at a public address. */
            url: string;
            /** @description What to tell of: ends, and `job.running` for every attempt that begins. Unless given: `["job.succeeded","job.failed","job.cancelled"]`. */
            events?: components["schemas"]["WebhookEvent"][];
        };
        /** @enum {string} */
        WeightDtype: "int8";
        /** @enum {string} */
        WeightOnlyAlgorithm: "rtn" | "gptq";
        /** @enum {string} */
        WeightOnlyFormat: "matmulnbits" | "qdq";
        WeightOnlyParams: {
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            method: "weight_only";
            /**
             * @description Two bits are for the products and tables of `matmulnbits`; other weights then have four.
             * @default 4
             * @enum {integer}
             */
            bits?: 2 | 4 | 8;
            /**
             * @description Weights that share one scale, along the reduction axis. When it is not given: 32 for 2 and 4 bits, 128 for 8.
             * @enum {integer}
             */
            block_size?: 16 | 32 | 64 | 128 | 256;
            /** @default false */
            symmetric?: boolean;
            /**
             * @description How scales are found: `rtn` from the range of each block as it is, `gptq` as it is when GPTQ reaches it. `gptq` implies the rounding of that name, and that rounding implies it.
             * @default rtn
             */
            algorithm?: components["schemas"]["WeightOnlyAlgorithm"];
            /** @description How weights become integers; `nearest` unless `algorithm` says otherwise. `nearest` looks at weights alone. The others look at samples, and a layer keeps what they make of it only where its output is nearer to the float model's on held-out samples: `adaround` learns for each weight whether up or down is better, given what the layers before it make once they are quantized (of at most 32 runs); `gptq` rounds one input after the other and lets the rest make up for it; `stochastic` draws `candidates` times at random. */
            rounding?: components["schemas"]["RoundingName"];
            /**
             * Format: int64
             * @description Draws for `stochastic`, of which each layer keeps the best; 16 when it is not given.
             */
            candidates?: number;
            /** @description Samples of what the model will see, for all roundings but `nearest`. Unless given: `null`. */
            dataset_id?: string | null;
            /**
             * Format: int64
             * @description How many of them, drawn by the seed.
             * @default 128
             */
            samples?: number;
            /**
             * @description `matmulnbits`: onnxruntime's own operators, fastest on onnxruntime. `qdq`: plain ONNX `DequantizeLinear`, which also covers Conv.
             * @default matmulnbits
             */
            format?: components["schemas"]["WeightOnlyFormat"];
            /**
             * @description Also quantize the tables that Gather reads.
             * @default true
             */
            embeddings?: boolean;
            /**
             * @description Of MatMulNBits: 4 computes in int8, 1 in float32, 0 leaves it to the runtime.
             * @default 4
             * @enum {integer}
             */
            accuracy_level?: 0 | 1 | 4;
            /** @description Nodes to leave alone, by their names in the uploaded model; a node without a name is called by its first output. A name that no node has is refused. */
            exclude_nodes?: string[];
            /** @description Operator types to leave alone, as in the uploaded model. One that it does not have is refused. */
            exclude_ops?: string[];
            /**
             * @description The method does the same for every machine. For a runtime the result is checked against its rules.
             * @default auto
             */
            target?: components["schemas"]["AnyTargetName"];
            /**
             * Format: int64
             * @description Seed of every random choice.
             * @default 0
             */
            seed?: number;
        };
        /** @description How a weight is quantized, and the form that it has in the file. */
        WeightPlan: {
            name: string;
            nodes: string[];
            /** Format: int64 */
            bits: number;
            signed: boolean;
            symmetric: boolean;
            /** @description Now one of `tensor`, `channel`, `block`; more may be added. */
            granularity: string;
            /** Format: int64 */
            block_size: number | null;
            storage: string;
        };
    };
    responses: {
        /** @description Any other problem. */
        Problem: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `invalid_request`: The request is malformed. */
        Problem400: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:invalid_request",
                 *       "title": "The request is malformed",
                 *       "status": 400,
                 *       "detail": "The request is malformed.",
                 *       "code": "invalid_request",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `unauthorized`: A valid API key is required. */
        Problem401: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:unauthorized",
                 *       "title": "A valid API key is required",
                 *       "status": 401,
                 *       "detail": "A valid API key is required.",
                 *       "code": "unauthorized",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `forbidden`: This key may not do that. `invalid_link`: This link does not open the file, or not any more. */
        Problem403: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:forbidden",
                 *       "title": "This key may not do that",
                 *       "status": 403,
                 *       "detail": "This key may not do that.",
                 *       "code": "forbidden",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `not_found`: No such resource. */
        Problem404: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:not_found",
                 *       "title": "No such resource",
                 *       "status": 404,
                 *       "detail": "No such resource.",
                 *       "code": "not_found",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `request_timeout`: The upload was too slow. */
        Problem408: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:request_timeout",
                 *       "title": "The upload was too slow",
                 *       "status": 408,
                 *       "detail": "The upload was too slow.",
                 *       "code": "request_timeout",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `conflict`: The resource is in use or in the wrong state. `cancelled`: The work was cancelled. */
        Problem409: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:conflict",
                 *       "title": "The resource is in use or in the wrong state",
                 *       "status": 409,
                 *       "detail": "The resource is in use or in the wrong state.",
                 *       "code": "conflict",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `idempotency_conflict`: This Idempotency-Key was used for another request. `source_failed`: The source could not be fetched. `validation_failed`: The request has invalid fields. `invalid_model`: The model cannot be used. `invalid_dataset`: The dataset cannot be used. `invalid_params`: The job cannot run as asked. `unsupported`: Not supported. `limit_exceeded`: A limit was exceeded. `non_finite`: The numbers left the finite range. `timeout`: The work took longer than its limit. `out_of_memory`: The work needed more memory than its limit. `worker_crashed`: The model crashed the runtime. `expired`: The job waited in the queue for too long. */
        Problem422: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:idempotency_conflict",
                 *       "title": "This Idempotency-Key was used for another request",
                 *       "status": 422,
                 *       "detail": "This Idempotency-Key was used for another request.",
                 *       "code": "idempotency_conflict",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `precondition_failed`: A precondition of the request does not hold. */
        Problem412: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:precondition_failed",
                 *       "title": "A precondition of the request does not hold",
                 *       "status": 412,
                 *       "detail": "A precondition of the request does not hold.",
                 *       "code": "precondition_failed",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `too_large`: The upload is too large. */
        Problem413: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:too_large",
                 *       "title": "The upload is too large",
                 *       "status": 413,
                 *       "detail": "The upload is too large.",
                 *       "code": "too_large",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `unsupported_media_type`: Unsupported media type. */
        Problem415: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:unsupported_media_type",
                 *       "title": "Unsupported media type",
                 *       "status": 415,
                 *       "detail": "Unsupported media type.",
                 *       "code": "unsupported_media_type",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `range_not_satisfiable`: Range not satisfiable. */
        Problem416: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:range_not_satisfiable",
                 *       "title": "Range not satisfiable",
                 *       "status": 416,
                 *       "detail": "Range not satisfiable.",
                 *       "code": "range_not_satisfiable",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `rate_limited`: Too many requests. `quota_exceeded`: Too many queued jobs. */
        Problem429: {
            headers: {
                /** @description Seconds. */
                "Retry-After"?: string;
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:rate_limited",
                 *       "title": "Too many requests",
                 *       "status": 429,
                 *       "detail": "Too many requests.",
                 *       "code": "rate_limited",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `headers_too_large`: The request's headers are too large. */
        Problem431: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:headers_too_large",
                 *       "title": "The request's headers are too large",
                 *       "status": 431,
                 *       "detail": "The request's headers are too large.",
                 *       "code": "headers_too_large",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `internal`: Internal error. */
        Problem500: {
            headers: {
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:internal",
                 *       "title": "Internal error",
                 *       "status": 500,
                 *       "detail": "Internal error.",
                 *       "code": "internal",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
        /** @description `unavailable`: A dependency is not available. */
        Problem503: {
            headers: {
                /** @description Seconds. */
                "Retry-After"?: string;
                [name: string]: unknown;
            };
            content: {
                /**
                 * @example {
                 *       "type": "urn:modelpress:problem:unavailable",
                 *       "title": "A dependency is not available",
                 *       "status": 503,
                 *       "detail": "A dependency is not available.",
                 *       "code": "unavailable",
                 *       "request_id": "0199d3b2-4f6e-7000"
                 *     }
                 */
                "application/problem+json": components["schemas"]["Problem"];
            };
        };
    };
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    listModels: {
        parameters: {
            query?: {
                /** @description Length of a page; it is shorter where it would be too many bytes. */
                limit?: number;
                /** @description `next_cursor` of the page before. */
                cursor?: string;
                /** @description The whole name, as it is written. */
                name?: string;
                /** @description A pair that it must have, as in `team:ocr`. For several: `metadata.<key>=<value>`, once for each. */
                metadata?: string;
                created_after?: string;
                created_before?: string;
                /** @description As in `sha256` of the record. */
                sha256?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Newest first. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "data": [
                     *         {
                     *           "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *           "object": "model",
                     *           "name": "rec",
                     *           "created_at": "2026-10-01T09:30:00.000Z",
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *           "size_bytes": 10822323,
                     *           "nodes": 440,
                     *           "parameters": 2680000,
                     *           "weight_bytes": 10700000,
                     *           "derived_from": null,
                     *           "metadata": {
                     *             "team": "ocr"
                     *           }
                     *         }
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["ModelPage"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createModel: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "multipart/form-data": components["schemas"]["ModelForm"];
            };
        };
        responses: {
            /** @description These bytes are a model already. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            /** @description The model was added. */
            201: {
                headers: {
                    /** @description Path of the model. */
                    Location?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            408: components["responses"]["Problem408"];
            409: components["responses"]["Problem409"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createModelFromUploads: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ModelFromUploads"];
            };
        };
        responses: {
            /** @description These bytes are a model already. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            /** @description The model was added. */
            201: {
                headers: {
                    /** @description Path of the model. */
                    Location?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            408: components["responses"]["Problem408"];
            409: components["responses"]["Problem409"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getModel: {
        parameters: {
            query?: {
                /** @description Sizes for symbolic dimensions, as in `w:320,n:1`: counts MACs and activation bytes for them. */
                dims?: string;
            };
            header?: never;
            path: {
                model_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The model. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    deleteModel: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The model is gone. */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            409: components["responses"]["Problem409"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    renameModel: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                model_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Renaming"];
            };
        };
        responses: {
            /** @description The model, as it is called now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    downloadModel: {
        parameters: {
            query?: never;
            header?: {
                /** @description One range of bytes, as in `bytes=0-1023`. */
                range?: string;
                /** @description An ETag: the range is answered only if it is still that. */
                "if-range"?: string;
                /** @description ETags; 304 if the bytes are one of them. */
                "if-none-match"?: string;
            };
            path: {
                model_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description All bytes. */
            200: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description RFC 9530: `sha-256=:…:` of the whole file. */
                    "Repr-Digest"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description The bytes that Range asks for. */
            206: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description Which bytes these are. */
                    "Content-Range"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description The bytes are the ones that If-None-Match names. */
            304: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            416: components["responses"]["Problem416"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    listModelLayers: {
        parameters: {
            query?: {
                /** @description Length of a page. */
                limit?: number;
                /** @description `next_cursor` of the page before. */
                cursor?: string;
            };
            header?: never;
            path: {
                model_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description In the order of the graph. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "data": [
                     *         {
                     *           "name": "Conv.0",
                     *           "op": "Conv",
                     *           "weight": "conv2d_0.w_0",
                     *           "shape": [
                     *             8,
                     *             3,
                     *             3,
                     *             3
                     *           ],
                     *           "parameters": 216,
                     *           "bytes": 864,
                     *           "dtype": "float32",
                     *           "weight_min": -0.91,
                     *           "weight_max": 0.87,
                     *           "channel_range_spread": 3.4,
                     *           "dead_channels": 0
                     *         }
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["LayerList"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    listDatasets: {
        parameters: {
            query?: {
                /** @description Length of a page; it is shorter where it would be too many bytes. */
                limit?: number;
                /** @description `next_cursor` of the page before. */
                cursor?: string;
                /** @description The whole name, as it is written. */
                name?: string;
                /** @description A pair that it must have, as in `team:ocr`. For several: `metadata.<key>=<value>`, once for each. */
                metadata?: string;
                created_after?: string;
                created_before?: string;
                /** @description As in `sha256` of the record. */
                sha256?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Newest first. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "data": [
                     *         {
                     *           "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *           "object": "dataset",
                     *           "name": "lines",
                     *           "created_at": "2026-10-01T09:30:00.000Z",
                     *           "size_bytes": 94372154,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *           "samples": 512,
                     *           "has_labels": false,
                     *           "metadata": {}
                     *         }
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["DatasetPage"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createDataset: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "multipart/form-data": components["schemas"]["DatasetForm"];
            };
        };
        responses: {
            /** @description This file is a dataset already. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            /** @description The dataset was added. */
            201: {
                headers: {
                    /** @description Path of the dataset. */
                    Location?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            408: components["responses"]["Problem408"];
            409: components["responses"]["Problem409"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createDatasetFromUploads: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["DatasetFromUploads"];
            };
        };
        responses: {
            /** @description This file is a dataset already. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            /** @description The dataset was added. */
            201: {
                headers: {
                    /** @description Path of the dataset. */
                    Location?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            408: components["responses"]["Problem408"];
            409: components["responses"]["Problem409"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getDataset: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                dataset_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The dataset. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    deleteDataset: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                dataset_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The dataset is gone. */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            409: components["responses"]["Problem409"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    renameDataset: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                dataset_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["Renaming"];
            };
        };
        responses: {
            /** @description The dataset, as it is called now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    listDatasetClasses: {
        parameters: {
            query?: {
                /** @description Length of a page. */
                limit?: number;
                /** @description `next_cursor` of the page before. */
                cursor?: string;
            };
            header?: never;
            path: {
                dataset_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Class 0 first. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "data": [
                     *         "cat",
                     *         "dog"
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["DatasetClassPage"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    downloadDataset: {
        parameters: {
            query?: never;
            header?: {
                /** @description One range of bytes, as in `bytes=0-1023`. */
                range?: string;
                /** @description An ETag: the range is answered only if it is still that. */
                "if-range"?: string;
                /** @description ETags; 304 if the bytes are one of them. */
                "if-none-match"?: string;
            };
            path: {
                dataset_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description All bytes. */
            200: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description RFC 9530: `sha-256=:…:` of the whole file. */
                    "Repr-Digest"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description The bytes that Range asks for. */
            206: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description RFC 9530: `sha-256=:…:` of the whole file. */
                    "Repr-Digest"?: string;
                    /** @description Which bytes these are. */
                    "Content-Range"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description The bytes are the ones that If-None-Match names. */
            304: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            416: components["responses"]["Problem416"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createModelFromSource: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ModelFromSource"];
            };
        };
        responses: {
            /** @description These bytes are a model already. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            /** @description The model was added. */
            201: {
                headers: {
                    /** @description Path of the model. */
                    Location?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "object": "model",
                     *       "name": "rec",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "size_bytes": 10822323,
                     *       "files": [
                     *         {
                     *           "name": "rec.onnx",
                     *           "size_bytes": 10822323,
                     *           "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
                     *         }
                     *       ],
                     *       "ir_version": 7,
                     *       "opset_imports": {
                     *         "ai.onnx": 9
                     *       },
                     *       "producer": "PaddlePaddle",
                     *       "inputs": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             3,
                     *             48,
                     *             "w"
                     *           ]
                     *         }
                     *       ],
                     *       "outputs": [
                     *         {
                     *           "name": "softmax_11.tmp_0",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             "n",
                     *             null,
                     *             6625
                     *           ],
                     *           "meaning": {
                     *             "kind": "class_scores",
                     *             "class_axis": null,
                     *             "evident": true
                     *           }
                     *         }
                     *       ],
                     *       "nodes": 440,
                     *       "operators": {
                     *         "Conv": 38,
                     *         "MatMul": 17
                     *       },
                     *       "parameters": 2680000,
                     *       "weight_bytes": 10700000,
                     *       "weight_bytes_by_dtype": {
                     *         "float32": 10700000
                     *       },
                     *       "activation_bytes": null,
                     *       "macs": null,
                     *       "trainable": {
                     *         "ok": true,
                     *         "subject": null,
                     *         "message": null
                     *       },
                     *       "non_finite_weights": [],
                     *       "warnings": [],
                     *       "derived_from": null,
                     *       "metadata": {
                     *         "team": "ocr"
                     *       }
                     *     }
                     */
                    "application/json": components["schemas"]["Model"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            408: components["responses"]["Problem408"];
            409: components["responses"]["Problem409"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createDatasetFromSource: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["DatasetFromSource"];
            };
        };
        responses: {
            /** @description This file is a dataset already. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            /** @description The dataset was added. */
            201: {
                headers: {
                    /** @description Path of the dataset. */
                    Location?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *       "object": "dataset",
                     *       "name": "lines",
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "size_bytes": 94372154,
                     *       "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *       "samples": 512,
                     *       "fields": [
                     *         {
                     *           "name": "x",
                     *           "dtype": "float32",
                     *           "shape": [
                     *             3,
                     *             48,
                     *             320
                     *           ],
                     *           "content": {
                     *             "min": -1,
                     *             "max": 1,
                     *             "non_finite": 0,
                     *             "first_non_finite": null
                     *           }
                     *         }
                     *       ],
                     *       "has_labels": false,
                     *       "classes": null,
                     *       "class_count": null,
                     *       "labels": null,
                     *       "warnings": [],
                     *       "metadata": {}
                     *     }
                     */
                    "application/json": components["schemas"]["Dataset"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            408: components["responses"]["Problem408"];
            409: components["responses"]["Problem409"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createUpload: {
        parameters: {
            query?: never;
            header?: {
                /** @description `1.0.0` */
                "tus-resumable"?: string;
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
                /** @description Bytes of the whole file. */
                "upload-length"?: string;
                "upload-metadata"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/offset+octet-stream": string;
            };
        };
        responses: {
            /** @description The upload can be sent to its Location. */
            201: {
                headers: {
                    /** @description `1.0.0` */
                    "Tus-Resumable"?: string;
                    /** @description Path of the upload. */
                    Location?: string;
                    /** @description When it is thrown away. */
                    "Upload-Expires"?: string;
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            408: components["responses"]["Problem408"];
            412: components["responses"]["Problem412"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getUploadOptions: {
        parameters: {
            query?: never;
            header?: {
                /** @description `1.0.0` */
                "tus-resumable"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description See the headers. */
            204: {
                headers: {
                    /** @description `1.0.0` */
                    "Tus-Resumable"?: string;
                    /** @description `1.0.0` */
                    "Tus-Version"?: string;
                    /** @description Supported extensions. */
                    "Tus-Extension"?: string;
                    /** @description Bytes. */
                    "Tus-Max-Size"?: string;
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    deleteUpload: {
        parameters: {
            query?: never;
            header?: {
                /** @description `1.0.0` */
                "tus-resumable"?: string;
            };
            path: {
                upload_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is gone. */
            204: {
                headers: {
                    /** @description `1.0.0` */
                    "Tus-Resumable"?: string;
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            412: components["responses"]["Problem412"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getUploadOffset: {
        parameters: {
            query?: never;
            header?: {
                /** @description `1.0.0` */
                "tus-resumable"?: string;
            };
            path: {
                upload_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description See the headers. */
            200: {
                headers: {
                    /** @description `1.0.0` */
                    "Tus-Resumable"?: string;
                    /** @description Bytes that have arrived. */
                    "Upload-Offset"?: string;
                    /** @description Bytes of the whole. */
                    "Upload-Length"?: string;
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            412: components["responses"]["Problem412"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    appendUpload: {
        parameters: {
            query?: never;
            header?: {
                /** @description `1.0.0` */
                "tus-resumable"?: string;
                /** @description Where these bytes start: the offset of the upload. */
                "upload-offset"?: string;
            };
            path: {
                upload_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/offset+octet-stream": string;
            };
        };
        responses: {
            /** @description The bytes have arrived. */
            204: {
                headers: {
                    /** @description `1.0.0` */
                    "Tus-Resumable"?: string;
                    /** @description Where the next bytes start. */
                    "Upload-Offset"?: string;
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            408: components["responses"]["Problem408"];
            409: components["responses"]["Problem409"];
            412: components["responses"]["Problem412"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    listJobs: {
        parameters: {
            query?: {
                /** @description Length of a page; it is shorter where it would be too many bytes. */
                limit?: number;
                /** @description `next_cursor` of the page before. */
                cursor?: string;
                /** @description The whole name, as it is written. */
                name?: string;
                /** @description A pair that it must have, as in `team:ocr`. For several: `metadata.<key>=<value>`, once for each. */
                metadata?: string;
                created_after?: string;
                created_before?: string;
                status?: components["schemas"]["JobStatus"];
                type?: components["schemas"]["JobType"];
                model_id?: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Newest first. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "data": [
                     *         {
                     *           "id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *           "object": "job",
                     *           "type": "quantize",
                     *           "method": "weight_only",
                     *           "status": "queued",
                     *           "name": "rec in 4 bits",
                     *           "metadata": {},
                     *           "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *           "priority": 5,
                     *           "progress": null,
                     *           "queue_position": 1,
                     *           "attempt": 0,
                     *           "created_at": "2026-10-01T09:30:00.000Z",
                     *           "started_at": null,
                     *           "finished_at": null,
                     *           "retry_of": null,
                     *           "result": null,
                     *           "error": null
                     *         }
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["JobPage"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createJob: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
                /** @description `wait=N`: answer when the job has ended, or after N seconds (at most 60) with the job as it is then. `Preference-Applied` in the answer says that it was taken. */
                prefer?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["JobRequest"];
            };
        };
        responses: {
            /** @description The job is recorded and waits for a worker; with `Prefer: wait` it may have ended. */
            202: {
                headers: {
                    /** @description Path of the job. */
                    Location?: string;
                    /** @description Seconds after which to ask for it. */
                    "Retry-After"?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *       "object": "job",
                     *       "type": "quantize",
                     *       "status": "queued",
                     *       "name": "rec in 4 bits",
                     *       "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "format": "qdq"
                     *       },
                     *       "effective_params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "symmetric": false,
                     *         "algorithm": "rtn",
                     *         "dataset_id": null,
                     *         "samples": 128,
                     *         "format": "qdq",
                     *         "embeddings": true,
                     *         "accuracy_level": 4,
                     *         "exclude_nodes": [],
                     *         "exclude_ops": [],
                     *         "target": "auto",
                     *         "seed": 0
                     *       },
                     *       "evaluation": {
                     *         "dataset_id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *         "samples": 100,
                     *         "metric": null,
                     *         "ignore_label": null,
                     *         "dims": {
                     *           "w": 320
                     *         },
                     *         "layer_errors": true,
                     *         "latency": {
                     *           "runs": 50,
                     *           "batch_size": 1,
                     *           "threads": 1
                     *         }
                     *       },
                     *       "acceptance": {
                     *         "min_sqnr_db": 20,
                     *         "max_size_ratio": 0.3
                     *       },
                     *       "metadata": {},
                     *       "priority": 5,
                     *       "progress": null,
                     *       "queue_position": 1,
                     *       "attempt": 0,
                     *       "handed_back": 0,
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "started_at": null,
                     *       "finished_at": null,
                     *       "delivery": null,
                     *       "retry_of": null,
                     *       "result": null,
                     *       "error": null
                     *     }
                     */
                    "application/json": components["schemas"]["Job"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            409: components["responses"]["Problem409"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    planJob: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["JobRequest"];
            };
        };
        responses: {
            /** @description What the job would do. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "warnings": [],
                     *       "type": "quantize",
                     *       "method": "weight_only",
                     *       "weights": [
                     *         {
                     *           "name": "linear_3.w_0",
                     *           "nodes": [
                     *             "MatMul.3"
                     *           ],
                     *           "bits": 4,
                     *           "signed": false,
                     *           "symmetric": false,
                     *           "granularity": "block",
                     *           "block_size": 32,
                     *           "storage": "matmulnbits"
                     *         }
                     *       ],
                     *       "values": [],
                     *       "quantized_nodes": [
                     *         {
                     *           "name": "MatMul.3",
                     *           "op": "MatMul",
                     *           "code": "quantized",
                     *           "message": "4 bits in blocks of 32."
                     *         }
                     *       ],
                     *       "skipped_nodes": [
                     *         {
                     *           "name": "Conv.0",
                     *           "op": "Conv",
                     *           "code": "too_few_weights",
                     *           "message": "Its weights are too few to be worth the scales."
                     *         }
                     *       ],
                     *       "size": {
                     *         "before_bytes": 10822323,
                     *         "predicted_bytes": 2200000,
                     *         "ratio": 0.203
                     *       },
                     *       "provisional": []
                     *     }
                     */
                    "application/json": components["schemas"]["JobPlan"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createWebhookSecret: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["WebhookReceiver"];
            };
        };
        responses: {
            /** @description The secret, once. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "url": "https://ci.example.com/hooks/modelpress",
                     *       "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=",
                     *       "previous_valid_until": null
                     *     }
                     */
                    "application/json": components["schemas"]["WebhookSecret"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    redeliverJobWebhook: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is sent. */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *       "object": "job",
                     *       "type": "quantize",
                     *       "status": "succeeded",
                     *       "name": "rec in 4 bits",
                     *       "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "format": "qdq"
                     *       },
                     *       "effective_params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "symmetric": false,
                     *         "algorithm": "rtn",
                     *         "dataset_id": null,
                     *         "samples": 128,
                     *         "format": "qdq",
                     *         "embeddings": true,
                     *         "accuracy_level": 4,
                     *         "exclude_nodes": [],
                     *         "exclude_ops": [],
                     *         "target": "auto",
                     *         "seed": 0
                     *       },
                     *       "evaluation": {
                     *         "dataset_id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *         "samples": 100,
                     *         "metric": null,
                     *         "ignore_label": null,
                     *         "dims": {
                     *           "w": 320
                     *         },
                     *         "layer_errors": true,
                     *         "latency": {
                     *           "runs": 50,
                     *           "batch_size": 1,
                     *           "threads": 1
                     *         }
                     *       },
                     *       "acceptance": {
                     *         "min_sqnr_db": 20,
                     *         "max_size_ratio": 0.3
                     *       },
                     *       "metadata": {},
                     *       "priority": 5,
                     *       "progress": {
                     *         "step": "done",
                     *         "fraction": 1,
                     *         "message": ""
                     *       },
                     *       "queue_position": null,
                     *       "attempt": 1,
                     *       "handed_back": 0,
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "started_at": "2026-10-01T09:30:00.120Z",
                     *       "finished_at": "2026-10-01T09:30:09.480Z",
                     *       "delivery": null,
                     *       "retry_of": null,
                     *       "result": {
                     *         "model_id": "mdl_0199d3b2-7e11-7f00-9a9b-21222324252f",
                     *         "accepted": true,
                     *         "artifacts": [
                     *           {
                     *             "name": "model.onnx",
                     *             "media_type": "application/octet-stream",
                     *             "size_bytes": 2164464,
                     *             "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *             "url": "/v1/jobs/job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f/artifacts/model.onnx"
                     *           }
                     *         ],
                     *         "metrics": {
                     *           "size": {
                     *             "before_bytes": 10822323,
                     *             "after_bytes": 2164464,
                     *             "ratio": 0.2
                     *           },
                     *           "fidelity": {
                     *             "samples": 100,
                     *             "data": "evaluation",
                     *             "outputs": [
                     *               {
                     *                 "name": "softmax_11.tmp_0",
                     *                 "sqnr_db": 24.1,
                     *                 "cosine": 0.998,
                     *                 "min_value": 0,
                     *                 "max_value": 1,
                     *                 "max_abs_error": 0.21,
                     *                 "mean_abs_error": 0.0004,
                     *                 "top1_agreement": 0.994,
                     *                 "sqnr_interval_db": [
                     *                   23.8,
                     *                   24.5
                     *                 ],
                     *                 "top1_agreement_interval": [
                     *                   0.988,
                     *                   0.998
                     *                 ],
                     *                 "non_finite": 0,
                     *                 "shape_mismatches": 0
                     *               }
                     *             ]
                     *           },
                     *           "accuracy": null,
                     *           "latency": {
                     *             "before": {
                     *               "p50_ms": 41.2,
                     *               "p90_ms": 44,
                     *               "mean_ms": 41.9
                     *             },
                     *             "after": {
                     *               "p50_ms": 39.8,
                     *               "p90_ms": 42.1,
                     *               "mean_ms": 40.2
                     *             },
                     *             "speedup": 1.035,
                     *             "speedup_interval": [
                     *               1.01,
                     *               1.06
                     *             ],
                     *             "batch_size": 1,
                     *             "threads": 1,
                     *             "runs": 50,
                     *             "cpu": "AMD EPYC"
                     *           },
                     *           "memory": {
                     *             "baseline_bytes": 52428800,
                     *             "before_peak_bytes": 96468992,
                     *             "after_peak_bytes": 88080384
                     *           },
                     *           "coverage": {
                     *             "quantized_nodes": 54,
                     *             "skipped_nodes": [
                     *               {
                     *                 "name": "Conv.0",
                     *                 "op": "Conv",
                     *                 "code": "too_few_weights",
                     *                 "message": "Its weights are too few to be worth the scales."
                     *               }
                     *             ],
                     *             "fused_nodes": 0,
                     *             "float_islands": []
                     *           },
                     *           "training": null,
                     *           "exits": null,
                     *           "deployment": null,
                     *           "models": null,
                     *           "auto": null,
                     *           "acceptance": [
                     *             {
                     *               "name": "min_sqnr_db",
                     *               "limit": 20,
                     *               "value": 24.1,
                     *               "ok": true
                     *             },
                     *             {
                     *               "name": "max_size_ratio",
                     *               "limit": 0.3,
                     *               "value": 0.2,
                     *               "ok": true
                     *             }
                     *           ],
                     *           "warnings": [],
                     *           "environment": {
                     *             "onnxruntime": "1.30.0",
                     *             "cpu": "AMD EPYC",
                     *             "isa": [
                     *               "avx2"
                     *             ],
                     *             "threads": 1,
                     *             "seed": 0,
                     *             "versions": {
                     *               "modelpress": "0.1.0"
                     *             }
                     *           }
                     *         },
                     *         "steps": null
                     *       },
                     *       "error": null
                     *     }
                     */
                    "application/json": components["schemas"]["Job"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            409: components["responses"]["Problem409"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getJob: {
        parameters: {
            query?: never;
            header?: {
                /** @description `wait=N`: answer when the job has ended, or after N seconds (at most 60) with the job as it is then. `Preference-Applied` in the answer says that it was taken. */
                prefer?: string;
            };
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The job. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *       "object": "job",
                     *       "type": "quantize",
                     *       "status": "succeeded",
                     *       "name": "rec in 4 bits",
                     *       "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "format": "qdq"
                     *       },
                     *       "effective_params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "symmetric": false,
                     *         "algorithm": "rtn",
                     *         "dataset_id": null,
                     *         "samples": 128,
                     *         "format": "qdq",
                     *         "embeddings": true,
                     *         "accuracy_level": 4,
                     *         "exclude_nodes": [],
                     *         "exclude_ops": [],
                     *         "target": "auto",
                     *         "seed": 0
                     *       },
                     *       "evaluation": {
                     *         "dataset_id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *         "samples": 100,
                     *         "metric": null,
                     *         "ignore_label": null,
                     *         "dims": {
                     *           "w": 320
                     *         },
                     *         "layer_errors": true,
                     *         "latency": {
                     *           "runs": 50,
                     *           "batch_size": 1,
                     *           "threads": 1
                     *         }
                     *       },
                     *       "acceptance": {
                     *         "min_sqnr_db": 20,
                     *         "max_size_ratio": 0.3
                     *       },
                     *       "metadata": {},
                     *       "priority": 5,
                     *       "progress": {
                     *         "step": "done",
                     *         "fraction": 1,
                     *         "message": ""
                     *       },
                     *       "queue_position": null,
                     *       "attempt": 1,
                     *       "handed_back": 0,
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "started_at": "2026-10-01T09:30:00.120Z",
                     *       "finished_at": "2026-10-01T09:30:09.480Z",
                     *       "delivery": null,
                     *       "retry_of": null,
                     *       "result": {
                     *         "model_id": "mdl_0199d3b2-7e11-7f00-9a9b-21222324252f",
                     *         "accepted": true,
                     *         "artifacts": [
                     *           {
                     *             "name": "model.onnx",
                     *             "media_type": "application/octet-stream",
                     *             "size_bytes": 2164464,
                     *             "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *             "url": "/v1/jobs/job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f/artifacts/model.onnx"
                     *           }
                     *         ],
                     *         "metrics": {
                     *           "size": {
                     *             "before_bytes": 10822323,
                     *             "after_bytes": 2164464,
                     *             "ratio": 0.2
                     *           },
                     *           "fidelity": {
                     *             "samples": 100,
                     *             "data": "evaluation",
                     *             "outputs": [
                     *               {
                     *                 "name": "softmax_11.tmp_0",
                     *                 "sqnr_db": 24.1,
                     *                 "cosine": 0.998,
                     *                 "min_value": 0,
                     *                 "max_value": 1,
                     *                 "max_abs_error": 0.21,
                     *                 "mean_abs_error": 0.0004,
                     *                 "top1_agreement": 0.994,
                     *                 "sqnr_interval_db": [
                     *                   23.8,
                     *                   24.5
                     *                 ],
                     *                 "top1_agreement_interval": [
                     *                   0.988,
                     *                   0.998
                     *                 ],
                     *                 "non_finite": 0,
                     *                 "shape_mismatches": 0
                     *               }
                     *             ]
                     *           },
                     *           "accuracy": null,
                     *           "latency": {
                     *             "before": {
                     *               "p50_ms": 41.2,
                     *               "p90_ms": 44,
                     *               "mean_ms": 41.9
                     *             },
                     *             "after": {
                     *               "p50_ms": 39.8,
                     *               "p90_ms": 42.1,
                     *               "mean_ms": 40.2
                     *             },
                     *             "speedup": 1.035,
                     *             "speedup_interval": [
                     *               1.01,
                     *               1.06
                     *             ],
                     *             "batch_size": 1,
                     *             "threads": 1,
                     *             "runs": 50,
                     *             "cpu": "AMD EPYC"
                     *           },
                     *           "memory": {
                     *             "baseline_bytes": 52428800,
                     *             "before_peak_bytes": 96468992,
                     *             "after_peak_bytes": 88080384
                     *           },
                     *           "coverage": {
                     *             "quantized_nodes": 54,
                     *             "skipped_nodes": [
                     *               {
                     *                 "name": "Conv.0",
                     *                 "op": "Conv",
                     *                 "code": "too_few_weights",
                     *                 "message": "Its weights are too few to be worth the scales."
                     *               }
                     *             ],
                     *             "fused_nodes": 0,
                     *             "float_islands": []
                     *           },
                     *           "training": null,
                     *           "exits": null,
                     *           "deployment": null,
                     *           "models": null,
                     *           "auto": null,
                     *           "acceptance": [
                     *             {
                     *               "name": "min_sqnr_db",
                     *               "limit": 20,
                     *               "value": 24.1,
                     *               "ok": true
                     *             },
                     *             {
                     *               "name": "max_size_ratio",
                     *               "limit": 0.3,
                     *               "value": 0.2,
                     *               "ok": true
                     *             }
                     *           ],
                     *           "warnings": [],
                     *           "environment": {
                     *             "onnxruntime": "1.30.0",
                     *             "cpu": "AMD EPYC",
                     *             "isa": [
                     *               "avx2"
                     *             ],
                     *             "threads": 1,
                     *             "seed": 0,
                     *             "versions": {
                     *               "modelpress": "0.1.0"
                     *             }
                     *           }
                     *         },
                     *         "steps": null
                     *       },
                     *       "error": null
                     *     }
                     */
                    "application/json": components["schemas"]["Job"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    deleteJob: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The job is gone. */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            409: components["responses"]["Problem409"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    renameJob: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["JobRenaming"];
            };
        };
        responses: {
            /** @description The job, as it is called now. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *       "object": "job",
                     *       "type": "quantize",
                     *       "status": "succeeded",
                     *       "name": "rec in 4 bits",
                     *       "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "format": "qdq"
                     *       },
                     *       "effective_params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "symmetric": false,
                     *         "algorithm": "rtn",
                     *         "dataset_id": null,
                     *         "samples": 128,
                     *         "format": "qdq",
                     *         "embeddings": true,
                     *         "accuracy_level": 4,
                     *         "exclude_nodes": [],
                     *         "exclude_ops": [],
                     *         "target": "auto",
                     *         "seed": 0
                     *       },
                     *       "evaluation": {
                     *         "dataset_id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *         "samples": 100,
                     *         "metric": null,
                     *         "ignore_label": null,
                     *         "dims": {
                     *           "w": 320
                     *         },
                     *         "layer_errors": true,
                     *         "latency": {
                     *           "runs": 50,
                     *           "batch_size": 1,
                     *           "threads": 1
                     *         }
                     *       },
                     *       "acceptance": {
                     *         "min_sqnr_db": 20,
                     *         "max_size_ratio": 0.3
                     *       },
                     *       "metadata": {},
                     *       "priority": 5,
                     *       "progress": {
                     *         "step": "done",
                     *         "fraction": 1,
                     *         "message": ""
                     *       },
                     *       "queue_position": null,
                     *       "attempt": 1,
                     *       "handed_back": 0,
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "started_at": "2026-10-01T09:30:00.120Z",
                     *       "finished_at": "2026-10-01T09:30:09.480Z",
                     *       "delivery": null,
                     *       "retry_of": null,
                     *       "result": {
                     *         "model_id": "mdl_0199d3b2-7e11-7f00-9a9b-21222324252f",
                     *         "accepted": true,
                     *         "artifacts": [
                     *           {
                     *             "name": "model.onnx",
                     *             "media_type": "application/octet-stream",
                     *             "size_bytes": 2164464,
                     *             "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                     *             "url": "/v1/jobs/job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f/artifacts/model.onnx"
                     *           }
                     *         ],
                     *         "metrics": {
                     *           "size": {
                     *             "before_bytes": 10822323,
                     *             "after_bytes": 2164464,
                     *             "ratio": 0.2
                     *           },
                     *           "fidelity": {
                     *             "samples": 100,
                     *             "data": "evaluation",
                     *             "outputs": [
                     *               {
                     *                 "name": "softmax_11.tmp_0",
                     *                 "sqnr_db": 24.1,
                     *                 "cosine": 0.998,
                     *                 "min_value": 0,
                     *                 "max_value": 1,
                     *                 "max_abs_error": 0.21,
                     *                 "mean_abs_error": 0.0004,
                     *                 "top1_agreement": 0.994,
                     *                 "sqnr_interval_db": [
                     *                   23.8,
                     *                   24.5
                     *                 ],
                     *                 "top1_agreement_interval": [
                     *                   0.988,
                     *                   0.998
                     *                 ],
                     *                 "non_finite": 0,
                     *                 "shape_mismatches": 0
                     *               }
                     *             ]
                     *           },
                     *           "accuracy": null,
                     *           "latency": {
                     *             "before": {
                     *               "p50_ms": 41.2,
                     *               "p90_ms": 44,
                     *               "mean_ms": 41.9
                     *             },
                     *             "after": {
                     *               "p50_ms": 39.8,
                     *               "p90_ms": 42.1,
                     *               "mean_ms": 40.2
                     *             },
                     *             "speedup": 1.035,
                     *             "speedup_interval": [
                     *               1.01,
                     *               1.06
                     *             ],
                     *             "batch_size": 1,
                     *             "threads": 1,
                     *             "runs": 50,
                     *             "cpu": "AMD EPYC"
                     *           },
                     *           "memory": {
                     *             "baseline_bytes": 52428800,
                     *             "before_peak_bytes": 96468992,
                     *             "after_peak_bytes": 88080384
                     *           },
                     *           "coverage": {
                     *             "quantized_nodes": 54,
                     *             "skipped_nodes": [
                     *               {
                     *                 "name": "Conv.0",
                     *                 "op": "Conv",
                     *                 "code": "too_few_weights",
                     *                 "message": "Its weights are too few to be worth the scales."
                     *               }
                     *             ],
                     *             "fused_nodes": 0,
                     *             "float_islands": []
                     *           },
                     *           "training": null,
                     *           "exits": null,
                     *           "deployment": null,
                     *           "models": null,
                     *           "auto": null,
                     *           "acceptance": [
                     *             {
                     *               "name": "min_sqnr_db",
                     *               "limit": 20,
                     *               "value": 24.1,
                     *               "ok": true
                     *             },
                     *             {
                     *               "name": "max_size_ratio",
                     *               "limit": 0.3,
                     *               "value": 0.2,
                     *               "ok": true
                     *             }
                     *           ],
                     *           "warnings": [],
                     *           "environment": {
                     *             "onnxruntime": "1.30.0",
                     *             "cpu": "AMD EPYC",
                     *             "isa": [
                     *               "avx2"
                     *             ],
                     *             "threads": 1,
                     *             "seed": 0,
                     *             "versions": {
                     *               "modelpress": "0.1.0"
                     *             }
                     *           }
                     *         },
                     *         "steps": null
                     *       },
                     *       "error": null
                     *     }
                     */
                    "application/json": components["schemas"]["Job"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    cancelJob: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is cancelled, or will be. */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *       "object": "job",
                     *       "type": "quantize",
                     *       "status": "queued",
                     *       "name": "rec in 4 bits",
                     *       "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "format": "qdq"
                     *       },
                     *       "effective_params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "symmetric": false,
                     *         "algorithm": "rtn",
                     *         "dataset_id": null,
                     *         "samples": 128,
                     *         "format": "qdq",
                     *         "embeddings": true,
                     *         "accuracy_level": 4,
                     *         "exclude_nodes": [],
                     *         "exclude_ops": [],
                     *         "target": "auto",
                     *         "seed": 0
                     *       },
                     *       "evaluation": {
                     *         "dataset_id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *         "samples": 100,
                     *         "metric": null,
                     *         "ignore_label": null,
                     *         "dims": {
                     *           "w": 320
                     *         },
                     *         "layer_errors": true,
                     *         "latency": {
                     *           "runs": 50,
                     *           "batch_size": 1,
                     *           "threads": 1
                     *         }
                     *       },
                     *       "acceptance": {
                     *         "min_sqnr_db": 20,
                     *         "max_size_ratio": 0.3
                     *       },
                     *       "metadata": {},
                     *       "priority": 5,
                     *       "progress": null,
                     *       "queue_position": 1,
                     *       "attempt": 0,
                     *       "handed_back": 0,
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "started_at": null,
                     *       "finished_at": null,
                     *       "delivery": null,
                     *       "retry_of": null,
                     *       "result": null,
                     *       "error": null
                     *     }
                     */
                    "application/json": components["schemas"]["Job"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            409: components["responses"]["Problem409"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    retryJob: {
        parameters: {
            query?: never;
            header?: {
                /** @description The same key again, for a day, answers with what the first request has made. */
                "idempotency-key"?: string;
            };
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The new job. */
            202: {
                headers: {
                    /** @description Path of the new job. */
                    Location?: string;
                    /** @description Seconds after which to ask for it. */
                    "Retry-After"?: string;
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *       "object": "job",
                     *       "type": "quantize",
                     *       "status": "queued",
                     *       "name": "rec in 4 bits",
                     *       "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *       "params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "format": "qdq"
                     *       },
                     *       "effective_params": {
                     *         "method": "weight_only",
                     *         "bits": 4,
                     *         "block_size": 32,
                     *         "symmetric": false,
                     *         "algorithm": "rtn",
                     *         "dataset_id": null,
                     *         "samples": 128,
                     *         "format": "qdq",
                     *         "embeddings": true,
                     *         "accuracy_level": 4,
                     *         "exclude_nodes": [],
                     *         "exclude_ops": [],
                     *         "target": "auto",
                     *         "seed": 0
                     *       },
                     *       "evaluation": {
                     *         "dataset_id": "dst_0199d3b2-51aa-7c44-8d02-6f1e2d3c4b5a",
                     *         "samples": 100,
                     *         "metric": null,
                     *         "ignore_label": null,
                     *         "dims": {
                     *           "w": 320
                     *         },
                     *         "layer_errors": true,
                     *         "latency": {
                     *           "runs": 50,
                     *           "batch_size": 1,
                     *           "threads": 1
                     *         }
                     *       },
                     *       "acceptance": {
                     *         "min_sqnr_db": 20,
                     *         "max_size_ratio": 0.3
                     *       },
                     *       "metadata": {},
                     *       "priority": 5,
                     *       "progress": null,
                     *       "queue_position": 1,
                     *       "attempt": 0,
                     *       "handed_back": 0,
                     *       "created_at": "2026-10-01T09:30:00.000Z",
                     *       "started_at": null,
                     *       "finished_at": null,
                     *       "delivery": null,
                     *       "retry_of": null,
                     *       "result": null,
                     *       "error": null
                     *     }
                     */
                    "application/json": components["schemas"]["Job"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            409: components["responses"]["Problem409"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    listJobEvents: {
        parameters: {
            query?: {
                /** @description Of the JSON list. */
                limit?: number;
                /** @description Events after this id. */
                cursor?: string;
            };
            header?: never;
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Oldest first. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "data": [
                     *         {
                     *           "id": 7,
                     *           "at": "2026-10-01T09:30:04.000Z",
                     *           "type": "progress",
                     *           "data": {
                     *             "step": "quantize",
                     *             "fraction": 0.4,
                     *             "message": "22 of 54 nodes"
                     *           }
                     *         }
                     *       ],
                     *       "next_cursor": null
                     *     }
                     */
                    "application/json": components["schemas"]["JobEventPage"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    streamJobEvents: {
        parameters: {
            query?: {
                /** @description Events after this id. */
                cursor?: string;
            };
            header?: {
                /** @description Events after this id; goes before `cursor`. */
                "last-event-id"?: string;
            };
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Oldest first. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": string;
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    createJobLink: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["LinkedArtifact"];
            };
        };
        responses: {
            /** @description The link. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "url": "https://press.example.com/v1/jobs/job_0199d3b2-4f6e-7000-8000-000000000003/report?expires=1767225600&signature=Zm9yIHRoaXMgZmlsZSBvbmx5",
                     *       "expires_at": "2026-01-01T00:00:00.000Z"
                     *     }
                     */
                    "application/json": components["schemas"]["Link"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            413: components["responses"]["Problem413"];
            415: components["responses"]["Problem415"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    downloadJobArtifact: {
        parameters: {
            query?: never;
            header?: {
                /** @description One range of bytes, as in `bytes=0-1023`. */
                range?: string;
                /** @description An ETag: the range is answered only if it is still that. */
                "if-range"?: string;
                /** @description ETags; 304 if the bytes are one of them. */
                "if-none-match"?: string;
            };
            path: {
                job_id: string;
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description All bytes. */
            200: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description RFC 9530: `sha-256=:…:` of the whole file. */
                    "Repr-Digest"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description The bytes that Range asks for. */
            206: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description RFC 9530: `sha-256=:…:` of the whole file. */
                    "Repr-Digest"?: string;
                    /** @description Which bytes these are. */
                    "Content-Range"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": string;
                };
            };
            /** @description The bytes are the ones that If-None-Match names. */
            304: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            416: components["responses"]["Problem416"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getJobReport: {
        parameters: {
            query?: never;
            header?: {
                /** @description One range of bytes, as in `bytes=0-1023`. */
                range?: string;
                /** @description An ETag: the range is answered only if it is still that. */
                "if-range"?: string;
                /** @description ETags; 304 if the bytes are one of them. */
                "if-none-match"?: string;
            };
            path: {
                job_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description All bytes. */
            200: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description RFC 9530: `sha-256=:…:` of the whole file. */
                    "Repr-Digest"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                };
            };
            /** @description The bytes that Range asks for. */
            206: {
                headers: {
                    /** @description Changes when the bytes do; use it with If-None-Match and If-Range. */
                    ETag?: string;
                    /** @description `bytes`. */
                    "Accept-Ranges"?: string;
                    /** @description The file's name. */
                    "Content-Disposition"?: string;
                    /** @description RFC 9530: `sha-256=:…:` of the whole file. */
                    "Repr-Digest"?: string;
                    /** @description Which bytes these are. */
                    "Content-Range"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                };
            };
            /** @description The bytes are the ones that If-None-Match names. */
            304: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            416: components["responses"]["Problem416"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    compareJobs: {
        parameters: {
            query: {
                /** @description Ids with commas between them, at most 20. */
                job_ids: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The jobs. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "jobs": [
                     *         {
                     *           "job_id": "job_0199d3b2-5a30-7e21-b8c4-0a1b2c3d4e5f",
                     *           "name": null,
                     *           "type": "quantize",
                     *           "method": "weight_only",
                     *           "title": "Weights in 4 bits",
                     *           "status": "succeeded",
                     *           "model_id": "mdl_0199d3b2-4f6e-7a10-9c1e-3b5f6a7d8e90",
                     *           "result_model_id": "mdl_0199d3b2-7e11-7f00-9a9b-21222324252f",
                     *           "accepted": true,
                     *           "created_at": "2026-10-01T09:30:00.000Z",
                     *           "finished_at": "2026-10-01T09:30:09.480Z",
                     *           "metrics": {
                     *             "size": {
                     *               "before_bytes": 10822323,
                     *               "after_bytes": 2164464,
                     *               "ratio": 0.2
                     *             },
                     *             "accuracy": null,
                     *             "latency": {
                     *               "before": {
                     *                 "p50_ms": 41.2,
                     *                 "p90_ms": 44,
                     *                 "mean_ms": 41.9
                     *               },
                     *               "after": {
                     *                 "p50_ms": 39.8,
                     *                 "p90_ms": 42.1,
                     *                 "mean_ms": 40.2
                     *               },
                     *               "speedup": 1.035,
                     *               "speedup_interval": [
                     *                 1.01,
                     *                 1.06
                     *               ],
                     *               "batch_size": 1,
                     *               "threads": 1,
                     *               "runs": 50,
                     *               "cpu": "AMD EPYC"
                     *             },
                     *             "memory": {
                     *               "baseline_bytes": 52428800,
                     *               "before_peak_bytes": 96468992,
                     *               "after_peak_bytes": 88080384
                     *             },
                     *             "acceptance": [
                     *               {
                     *                 "name": "min_sqnr_db",
                     *                 "limit": 20,
                     *                 "value": 24.1,
                     *                 "ok": true
                     *               },
                     *               {
                     *                 "name": "max_size_ratio",
                     *                 "limit": 0.3,
                     *                 "value": 0.2,
                     *                 "ok": true
                     *               }
                     *             ],
                     *             "worst_sqnr_db": 24.1,
                     *             "fidelity_data": "synthetic"
                     *           }
                     *         }
                     *       ],
                     *       "differences": []
                     *     }
                     */
                    "application/json": components["schemas"]["Comparison"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getComparisonReport: {
        parameters: {
            query: {
                /** @description Ids with commas between them, at most 20. */
                job_ids: string;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The page. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/html": string;
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            404: components["responses"]["Problem404"];
            422: components["responses"]["Problem422"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getHealth: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description It is. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "ok"
                     *     }
                     */
                    "application/json": components["schemas"]["Health"];
                };
            };
            400: components["responses"]["Problem400"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getReadiness: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Everything is there. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    /**
                     * @example {
                     *       "status": "ready",
                     *       "workers": 1,
                     *       "refusing_workers": 0
                     *     }
                     */
                    "application/json": components["schemas"]["Readiness"];
                };
            };
            400: components["responses"]["Problem400"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getMetrics: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description In Prometheus' text format. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getCapabilities: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Versions, methods and limits. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Capabilities"];
                };
            };
            400: components["responses"]["Problem400"];
            401: components["responses"]["Problem401"];
            403: components["responses"]["Problem403"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getOpenApiJson: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OpenAPI 3.1. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": {
                        [key: string]: unknown;
                    };
                };
            };
            400: components["responses"]["Problem400"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
    getOpenApiYaml: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description OpenAPI 3.1. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/yaml": string;
                };
            };
            400: components["responses"]["Problem400"];
            429: components["responses"]["Problem429"];
            431: components["responses"]["Problem431"];
            500: components["responses"]["Problem500"];
            503: components["responses"]["Problem503"];
            default: components["responses"]["Problem"];
        };
    };
}
