/* cuDNN's engines and plans for our graphs of attention and convolution, on descriptions of an A100 and an H100 (cuDNN needs no GPU for that
 * since 9.8). What cuDNN compiles is loaded by driver.c, and never run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "attention/cudnn.h"
#include "convolution/cudnn.h"

#define ROUND(parts) \
  "{\"cudaDeviceId\":0,\"driverVer\":13000,\"isTccDriver\":0,\"maxBlockSize\":[1024,1024,64],\"maxCtasPerSM\":32," \
  "\"maxGridSize\":[2147483647,65535,65535],\"maxRegistersPerSM\":65536,\"maxSharedMemoryPerBlock\":49152," \
  "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"memoryBusWidth\":5120,\"oversizedSharedMemoryPerBlock\":0," \
  "\"pciDeviceId\":0,\"regsPerBlock\":65536,\"reservedSharedMemoryPerBlock\":1024,\"supportCoopLaunch\":1,\"warpSize\":32," \
  parts "}"

static const char *const gpus[2] = {
  ROUND("\"deviceName\":\"NVIDIA A100-SXM4-40GB\",\"deviceVer\":800,\"multiProcessorCount\":108,\"smClockRateKHz\":1410000,"
        "\"memClockRateKHz\":1215000,\"l2CacheSize\":41943040,\"maxSharedMemoryPerBlockOptin\":166912,"
        "\"totalGlobalMem\":42505273344"),
  ROUND("\"deviceName\":\"NVIDIA H100 80GB HBM3\",\"deviceVer\":900,\"multiProcessorCount\":132,\"smClockRateKHz\":1980000,"
        "\"memClockRateKHz\":2619000,\"l2CacheSize\":52428800,\"maxSharedMemoryPerBlockOptin\":232448,"
        "\"totalGlobalMem\":85017624576"),
};

enum { FORWARD, FORWARD_WITH_LSE, BACKWARD, GRAPHS };

static void draw(cudnn_graph *g, cudnnBackendDescriptor_t gpu, int graph, attention_size n) {
  *g = (cudnn_graph){.device = gpu};
  pg_status status = graph == BACKWARD ? attention_cudnn_backward(g, n) : attention_cudnn_forward(g, n, graph == FORWARD_WITH_LSE);
  if (status) fail_msg("%s", pg_last_error());
}

/* How many engines there are; the first. */
static int engines(cudnnBackendDescriptor_t gpu, int graph, attention_size n, char first[CUDNN_ENGINE_TEXT]) {
  char found[4][CUDNN_ENGINE_TEXT] = {""};
  int count;
  cudnn_graph g;
  draw(&g, gpu, graph, n);
  if (cudnn_engines(&g, found, 4, &count)) fail_msg("%s", pg_last_error());
  memcpy(first, found[0], CUDNN_ENGINE_TEXT);
  cudnn_graph_free(&g);
  return count;
}

static cudnnBackendDescriptor_t gpu_of(int k) {
  cudnnBackendDescriptor_t gpu;
  if (cudnn_device(&gpu, gpus[k])) fail_msg("%s", pg_last_error());
  return gpu;
}

static void there_are_engines(void **state) {
  (void)state;
  static const attention_size sizes[] = {
    {16, 256, 6, 64}, {64, 256, 12, 64}, {32, 256, 16, 72}, {8, 1024, 16, 72}, /* SiT-S/2, B/2, XL/2, and that at 512 pixels */
    {64, 257, 12, 64},                                                        /* DINOv2-B with its class token */
    {8, 333, 24, 32}, {4, 65, 2, 24}, {2, 31, 3, 8}, {4, 130, 4, 128},        /* MMDiT's heads; edges */
  };
  char first[CUDNN_ENGINE_TEXT];
  for (int k = 0; k < 2; k++) {
    cudnnBackendDescriptor_t gpu = gpu_of(k);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int graph = 0; graph < GRAPHS; graph++) assert_true(engines(gpu, graph, sizes[s], first) > 0);
    assert_int_equal(0, engines(gpu, FORWARD, (attention_size){4, 130, 4, 12}, first)); /* 12 is no multiple of 8 */
    cudnnBackendDestroyDescriptor(gpu);
  }
}

/* The first engine of each graph becomes a plan. The backward's has room for a map in bfloat16: dS, by which dQ is summed in a
 * fixed order. */
static void there_are_plans(void **state) {
  (void)state;
  const attention_size n = {32, 256, 16, 72};
  const int64_t map = n.images * n.heads * n.tokens * n.tokens * 2, packed = n.images * n.tokens * 3 * n.heads * n.size * 4;
  for (int k = 0; k < 2; k++) {
    cudnnBackendDescriptor_t gpu = gpu_of(k);
    for (int graph = 0; graph < GRAPHS; graph++) {
      char first[CUDNN_ENGINE_TEXT];
      cudnn_graph g;
      assert_true(engines(gpu, graph, n, first) > 0);
      draw(&g, gpu, graph, n);
      if (cudnn_plan(&g, first)) fail_msg("%s", pg_last_error());
      print_message("%s: %s engine %s, workspace %lld\n", k ? "sm_90" : "sm_80", g.op, first, (long long)g.workspace);
      assert_true(g.workspace <= packed && (graph != BACKWARD || g.workspace >= map));
      cudnn_graph_free(&g);
    }
    cudnnBackendDestroyDescriptor(gpu);
  }
}

/* What an image decoder and its encoder are made of, and edges; x's padding is what keeps y's size, or (0,1,0,1). */
static convolution_size convolution_of(int64_t images, int64_t channels, int64_t pixels, int64_t outputs, int64_t kernel,
                                       int64_t stride) {
  const int64_t around = kernel / 2, first = stride == 1 ? around : 0, rows = (pixels + first + around - kernel) / stride + 1;
  return (convolution_size){images, channels, pixels, pixels, outputs, kernel, kernel, rows, rows, stride,
                            first,  around,   first,  around};
}

static void draw_convolution(cudnn_graph *g, cudnnBackendDescriptor_t gpu, const convolution_graph *c) {
  *g = (cudnn_graph){.device = gpu};
  if (convolution_cudnn(g, c)) fail_msg("%s", pg_last_error());
}

/* Prints the first engine that has a plan. */
static void expect_a_plan(cudnnBackendDescriptor_t gpu, const char *name, const convolution_graph *c) {
  char found[4][CUDNN_ENGINE_TEXT] = {""};
  int count, planned = 0;
  cudnn_graph g;
  draw_convolution(&g, gpu, c);
  if (cudnn_engines(&g, found, 4, &count)) fail_msg("%s", pg_last_error());
  cudnn_graph_free(&g);
  for (int e = 0; e < count && !planned; e++) {
    draw_convolution(&g, gpu, c);
    planned = cudnn_plan(&g, found[e]) == PG_OK;
    if (planned) print_message("%s: %s engine %s, workspace %lld\n", name, g.op, found[e], (long long)g.workspace);
    cudnn_graph_free(&g);
  }
  if (!planned) fail_msg("%s: no plan for kernel %d, dtype %d, tf32 %d", name, c->kernel, c->dtype, c->tf32);
}

/* Every kernel has a plan in float32, tf32 and bfloat16, a bias in it. */
static void convolutions_have_plans(void **state) {
  (void)state;
  const convolution_size sizes[] = {
    convolution_of(4, 512, 32, 512, 3, 1), convolution_of(4, 512, 64, 256, 1, 1), convolution_of(1, 128, 256, 3, 3, 1),
    convolution_of(1, 4, 32, 512, 3, 1),   convolution_of(2, 128, 256, 128, 3, 2), convolution_of(2, 5, 9, 7, 3, 1),
    convolution_of(2, 8, 8, 8, 2, 1),      convolution_of(1, 1, 1, 1, 1, 1),
  };
  for (int k = 0; k < 2; k++) {
    cudnnBackendDescriptor_t gpu = gpu_of(k);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int kernel = CONVOLUTION_FORWARD; kernel <= CONVOLUTION_WEIGHT; kernel++)
        for (int arithmetic = 0; arithmetic < 3; arithmetic++) {
          const char *name = arithmetic == 2 ? "bfloat16" : arithmetic ? "tf32" : "float32";
          const convolution_graph c = {kernel, arithmetic == 2 ? PG_BFLOAT16 : PG_FLOAT32, arithmetic == 1,
                                       kernel == CONVOLUTION_FORWARD, sizes[s]};
          char what[64];
          snprintf(what, sizeof what, "%s, %s, size %d", k ? "sm_90" : "sm_80", name, (int)s);
          expect_a_plan(gpu, what, &c);
        }
    cudnnBackendDestroyDescriptor(gpu);
  }
}

static void an_unknown_engine_is_an_error(void **state) {
  (void)state;
  cudnnBackendDescriptor_t gpu = gpu_of(1);
  for (int k = 0; k < 3; k++) {
    cudnn_graph g;
    draw(&g, gpu, FORWARD, (attention_size){2, 64, 2, 64});
    assert_true(cudnn_plan(&g, (const char *const[3]){"4711:", "own", "8:40"}[k]) != PG_OK);
    assert_non_null(strstr(pg_last_error(), k ? "names no engine of cuDNN" : "cudnnBackendFinalize: CUDNN_STATUS_"));
    cudnn_graph_free(&g);
  }
  cudnnBackendDestroyDescriptor(gpu);
}

int main(void) {
  const struct CMUnitTest tests[] = {
    cmocka_unit_test(there_are_engines),
    cmocka_unit_test(there_are_plans),
    cmocka_unit_test(convolutions_have_plans),
    cmocka_unit_test(an_unknown_engine_is_an_error),
  };
  return cmocka_run_group_tests_name("plans of cuDNN", tests, NULL, NULL);
}
