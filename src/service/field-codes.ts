/** Every code of a wrong field, in `errors` of a problem, with the input that causes it: the guide to codes is made of this. */
export const FIELD_CODES = {
  // The form of a request.
  required: "A field that must be there is not.",
  missing: "A part of an upload, or a dependency that `/readyz` asks, is not there.",
  wrong_type: "A field has another type: a text for a number.",
  wrong_format: "A text is not written as it must be: a time, an address, a pattern.",
  not_allowed: "A value is none of those that there are.",
  too_small: "A number, text or list is below its least size.",
  too_large: "A number, text or list is above its largest size.",
  unrecognized_key: "There is no field of this name.",
  no_effect: "A field that nothing reads beside the values of the others.",
  invalid: "A value breaks another rule, which `message` says.",
  invalid_json: "A field of a form is not JSON.",
  invalid_cursor: "A cursor that is not from an earlier page.",
  misplaced: "What goes into the body was put into the query.",
  // Uploads.
  not_a_file: "The part `file` has no filename.",
  invalid_filename: "A name of a file has a path or other characters than a plain one.",
  duplicate_filename: "Two files of one upload have the same name.",
  upload_not_finished: "A resumable upload of which bytes are missing.",
  spec_mismatch: "`spec` describes another kind of file than was sent.",
  // Webhooks.
  source_refused:
    "An address that nothing is fetched from: a host, bucket, registered model or repository that the operator has not allowed, a private network, another scheme.",
  delivery_refused:
    "An address that nothing is sent to: a host, bucket or registered model that the operator has not allowed, a private network, another scheme.",
  sha256_mismatch: "What was fetched is another file than the sha256 says.",
  invalid_webhook_url: "An address that webhooks are not sent to: a private network, another scheme.",
  no_webhook_secret: "A receiver for which no secret was made.",
  webhooks_off: "Webhooks are switched off.",
  // What a job names.
  unknown_model: "There is no model of this id.",
  unknown_dataset: "There is no dataset of this id.",
  unknown_node: "The model has no node of this name.",
  unknown_operator: "The model has no node of this operator.",
  unknown_dimension: "The model's inputs have no symbolic dimension of this name.",
  unknown_input: "The model has no input of this name.",
  // What models and data are.
  unsupported_input: "The model takes something other than tensors of numbers.",
  unsupported_output: "The model gives no tensor that could be compared.",
  non_finite_weights: "A layer's weight holds NaN or infinities, and is to be quantized or learned from.",
  non_finite: "A field to calibrate or train with holds NaN or infinities.",
  dataset_mismatch: "The dataset has no field for an input, or one of another shape or type.",
  no_labels: "Something that needs labels, and a dataset without any.",
  invalid_labels: "Labels that are no classes of the output, or of another form than it has.",
  target_mismatch: "A method, or a form of it, that the runtime named by `target` cannot take.",
  metric_mismatch: "A metric that labels and outputs do not fit.",
  no_metric: "A training that is judged by a metric, and `metric: none`.",
  // Steps of pipelines.
  step_not_fed: "A step that does not use the model of the step before, or a first step that is fed and names its own.",
  // Comparisons.
  nothing_to_compare: "A limit of an evaluation of one model.",
  inputs_differ: "A model takes an input that the first does not take.",
  outputs_differ: "A model has no output in common with the first.",
  fixed_batch: "A batch size other than the model prescribes.",
  too_few_samples: "Fewer samples than one batch has.",
  // Training.
  not_trainable: "A model that cannot be trained; `message` names the node.",
  no_teacher: "Something that needs a teacher, and none.",
  no_loss: "All weights of the loss are 0.",
  input_mismatch: "The student takes other inputs than the teacher.",
  output_mismatch: "No output of the student stands for one of the teacher, or one that is named is not there.",
  shape_mismatch: "Outputs, hints or labels that are to be compared differ in more than axes of 1.",
  batch_too_small: "A normalization would see one value for each channel.",
  invalid_hint: "A hint names a value that is not there, or that cannot be compared.",
  invalid_exit: "An exit names a value that is not there, or that nothing can be learned at.",
  unused_field: "A field of another mode of distillation.",
  too_few_peers: "An online distillation of one network.",
  same_start: "Two networks that would start with the same weights and learn the same.",
  nothing_held_out: "A training that is judged by held-out samples, and a `validation_split` that leaves none.",
} as const satisfies Readonly<Record<string, string>>;

export type FieldCode = keyof typeof FIELD_CODES;
