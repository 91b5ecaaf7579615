/* Stands for libcuda.so.1 while plans are made without a GPU: cuDNN opens the driver when a plan is finished, and loads what it
 * has compiled. Loading succeeds, everything else says CUDA_ERROR_NO_DEVICE. Nothing can be run over it. */
enum { CUDA_SUCCESS = 0, CUDA_ERROR_NO_DEVICE = 100 };

int cuDriverGetVersion(int *version) {
  *version = 13000;
  return CUDA_SUCCESS;
}
int cuLibraryLoadData(void **library, const void *code) {
  (void)code;
  *library = library;
  return CUDA_SUCCESS;
}
int cuLibraryGetKernel(void **kernel, void *library, const char *name) {
  (void)library, (void)name;
  *kernel = kernel;
  return CUDA_SUCCESS;
}

#define DONE(name) \
  int name(void) { return CUDA_SUCCESS; }
#define GONE(name) \
  int name(void) { return CUDA_ERROR_NO_DEVICE; }
DONE(cuLibraryUnload)
DONE(cuModuleUnload)
DONE(cuKernelSetAttribute)
DONE(cuKernelGetAttribute)
DONE(cuKernelGetFunction)
GONE(cuCtxGetCurrent)
GONE(cuCtxGetLimit)
GONE(cuCtxPopCurrent)
GONE(cuCtxPushCurrent)
GONE(cuDeviceGet)
GONE(cuDeviceGetCount)
GONE(cuGetErrorName)
GONE(cuLaunchCooperativeKernel)
GONE(cuLaunchKernel)
GONE(cuLaunchKernelEx)
GONE(cuLibraryLoadFromFile)
GONE(cuLinkAddData)
GONE(cuLinkComplete)
GONE(cuLinkCreate)
GONE(cuLinkDestroy)
GONE(cuOccupancyMaxPotentialClusterSize)
GONE(cuStreamGetCtx)
GONE(cuGetErrorString)
GONE(cuInit)
GONE(cuModuleGetFunction)
GONE(cuModuleLoadData)
GONE(cuTensorMapEncodeIm2col)
GONE(cuTensorMapEncodeTiled)
