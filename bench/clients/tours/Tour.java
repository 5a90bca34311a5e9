import java.io.File;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.DatasetsApi;
import org.openapitools.client.api.JobsApi;
import org.openapitools.client.api.ModelsApi;
import org.openapitools.client.model.*;

public class Tour {
  static final ApiClient CLIENT = new ApiClient();
  static JobsApi jobs;
  static ModelsApi models;

  static void ok(String step) {
    System.out.println("ok " + step);
  }

  static File file(String name) {
    return new File(System.getenv("FILES"), name);
  }

  static String upload(String... names) throws ApiException {
    List<File> files = new ArrayList<>();
    for (String name : names) files.add(file(name));
    return models.createModel(files, null, null, null).getId();
  }

  static Job finish(String id) throws Exception {
    for (;;) {
      Job job = jobs.getJob(id, null);
      if (job.getFinishedAt() != null) return job;
      Thread.sleep(500);
    }
  }

  static List<JobSummary> list(JobsApi api) throws ApiException {
    return api.listJobs(null, null, null, null, null, null, null, null, null).getData();
  }

  static JobRequest quantize(String model, String dataset) {
    WeightOnlyParams params = new WeightOnlyParams();
    params.setMethod(WeightOnlyParams.MethodEnum.WEIGHT_ONLY);
    params.setBits(WeightOnlyParams.BitsEnum.NUMBER_8);
    params.setFormat(WeightOnlyFormat.QDQ);
    QuantizeJobRequest request = new QuantizeJobRequest();
    request.setType(QuantizeJobRequest.TypeEnum.QUANTIZE);
    request.setModelId(model);
    request.setParams(new QuantizeParams(params));
    request.setEvaluation(new EvaluationOptions().datasetId(dataset).samples(32L));
    return new JobRequest(request);
  }

  public static void main(String[] arguments) throws Exception {
    CLIENT.updateBaseUri(System.getenv("MODELPRESS_URL"));
    jobs = new JobsApi(CLIENT);
    models = new ModelsApi(CLIENT);
    String model = upload("model.onnx");
    ok("model");
    if (upload("split.onnx", "weights.bin") != null) ok("two_files");
    String dataset = new DatasetsApi(CLIENT).createDataset(file("data.npz"), null, null, null, null).getId();
    ok("dataset");
    if (jobs.planJob(quantize(model, dataset)).getSize().getRatio() < 1) ok("plan");
    Job job = jobs.createJob(quantize(model, dataset), null, null);
    try {
      if (jobs.streamJobEvents(job.getId(), null, null).contains("\"status\":\"succeeded\"")) ok("stream");
    } catch (ApiException notJson) {
      // The native library parses every text but `text/plain` as JSON.
      System.out.println("no stream: " + notJson.getMessage());
    }
    Job done = finish(job.getId());
    if (done.getResult().getMetrics().getSize().getRatio() < 1) ok("quantize");
    UploadedStudent student = new UploadedStudent().modelId(upload("student.onnx"));
    OfflineDistillParams offline = new OfflineDistillParams();
    offline.setMode(OfflineDistillParams.ModeEnum.OFFLINE);
    offline.setTeacherModelId(model);
    offline.setDatasetId(dataset);
    offline.setStudent(new OfflineDistillParamsStudent(student));
    offline.setTraining(new Training().epochs(1L).batchSize(32L));
    DistillJobRequest distill = new DistillJobRequest();
    distill.setType(DistillJobRequest.TypeEnum.DISTILL);
    distill.setParams(new DistillParams(offline));
    Job distilled = finish(jobs.createJob(new JobRequest(distill), null, null).getId());
    if (distilled.getResult().getMetrics().getTraining().getHistory().size() == 1) ok("distill");
    File artifact = jobs.downloadJobArtifact(job.getId(), "model.onnx", null, null, null);
    if (Files.size(artifact.toPath()) == done.getResult().getArtifacts().get(0).getSizeBytes()) ok("download");
    try {
      jobs.createJob(quantize("mdl_none", dataset), null, null);
    } catch (ApiException refusal) {
      if (refusal.getResponseBody().contains("\"errors\"")) ok("refusal");
    }
    if (list(jobs).size() >= 2) ok("list");
    for (String news : List.of("field", "method", "status", "type")) {
      ApiClient later = new ApiClient();
      later.updateBaseUri(System.getenv("FUTURE_URL") + "/" + news);
      if (!list(new JobsApi(later)).get(0).getStatus().isEmpty()) ok("new_" + news);
    }
  }
}
