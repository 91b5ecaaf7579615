# CUDA kernels: kernels/<op>/cuda.cu, once per dtype; cuda.c and cuda_*.c, once, where a vendor's library does the work.
# Together they define every kernel of their folder's headers. Nothing here is part of the ordinary build:
#
#   PERIGEE_CUDA_KERNEL_TABLE     the table of CUDA kernels, C
#   PERIGEE_CUDA_KERNEL_SOURCES   the .cu files
#   PERIGEE_CUDA_VENDOR_SOURCES   the .c files
#   PERIGEE_CUDNN_SOURCES         kernels/<op>/cudnn.c and what they share: with PERIGEE_WITH_CUDNN, where cuDNN is found
#   PERIGEE_CUDA_DTYPES           float32 bfloat16; code_<dtype> is PG_REAL's value
#   PERIGEE_CUDA_KERNEL_OBJECTS   the .cu files compiled for GPUs by the target cuda_kernels, where nvcc is found

file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*/cuda.cu)
file(GLOB vendor_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*/cuda.c ${CMAKE_CURRENT_SOURCE_DIR}/*/cuda_*.c)
file(GLOB cudnn_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda_cudnn.c ${CMAKE_CURRENT_SOURCE_DIR}/*/cudnn.c)
set(cuda_dtypes float32 bfloat16)

set(table "/* Made by kernels/cuda.cmake from the headers of kernels. */\n#include \"kernel_table.h\"\n\n")
set(rows)
foreach(name ${names})
  if(NOT EXISTS ${folder_of_${name}}/cuda.cu AND NOT EXISTS ${folder_of_${name}}/cuda.c)
    continue()
  endif()
  foreach(dtype ${cuda_dtypes})
    string(APPEND table "pg_status ${name}_cuda_${dtype}(const pg_call *call);\n")
    set(instance_${dtype} "{${name}_cuda_${dtype}, 0}")
    if(name IN_LIST planned)
      string(APPEND table "int64_t ${name}_scratch_cuda_${dtype}(const pg_call *call);\n")
      set(instance_${dtype} "{${name}_cuda_${dtype}, ${name}_scratch_cuda_${dtype}}")
    endif()
  endforeach()
  string(APPEND rows "  {\"${name}\", {${instance_float32}, {0, 0}, ${instance_bfloat16}}},\n")
endforeach()
string(APPEND table "\nconst pg_cuda_kernel_entry pg_cuda_kernel_table[] = {\n${rows}  {0, {{0, 0}}},\n};\n")
file(CONFIGURE OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/cuda_kernel_table.c CONTENT "${table}" @ONLY)

# Options for one file stand in it, as in "// nvcc: -fmad=false".
function(nvcc_options variable source)
  file(STRINGS ${source} lines REGEX "^// nvcc: ")
  string(REPLACE "// nvcc: " "" lines "${lines}")
  separate_arguments(lines UNIX_COMMAND "${lines}")
  set(${variable} ${lines} PARENT_SCOPE)
endfunction()

find_program(PERIGEE_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin)
set(PERIGEE_CUDA_ARCHITECTURES 80 90 CACHE STRING "GPUs to compile for; the last one as PTX too, for newer ones")
set(cuda_objects)
if(PERIGEE_NVCC)
  set(gencode)
  foreach(architecture ${PERIGEE_CUDA_ARCHITECTURES})
    list(APPEND gencode -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  list(GET PERIGEE_CUDA_ARCHITECTURES -1 newest)
  list(APPEND gencode -gencode arch=compute_${newest},code=compute_${newest})
  set(warnings -Xcompiler=-Wall,-Wextra,-Wno-unused-function,-Wno-unknown-pragmas)
  if(PERIGEE_WERROR)
    list(APPEND warnings -Werror all-warnings -Xcompiler=-Werror)
  endif()
  file(GLOB_RECURSE cuda_headers CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.h ${PROJECT_SOURCE_DIR}/base/*.h)
  foreach(source ${cuda_sources})
    get_filename_component(folder ${source} DIRECTORY)
    get_filename_component(op ${folder} NAME)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    nvcc_options(options ${source})
    foreach(dtype ${cuda_dtypes})
      set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${op}_${dtype}.o)
      add_custom_command(
        OUTPUT ${object}
        COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/cuda
        COMMAND ${CMAKE_C_COMPILER_LAUNCHER} ${PERIGEE_NVCC} -std=c++17 -O3 -lineinfo ${gencode} ${warnings} ${options}
                -Xcompiler=-fPIC,-fvisibility=hidden -I${CMAKE_CURRENT_SOURCE_DIR} -I${PROJECT_SOURCE_DIR}/base
                -DPG_REAL=${code_${dtype}} -DPG_SUFFIX=_cuda_${dtype} -c ${source} -o ${object}
        DEPENDS ${source} ${cuda_headers}
        COMMENT "Compiling ${op}/cuda.cu for GPUs, ${dtype}"
        VERBATIM)
      list(APPEND cuda_objects ${object})
    endforeach()
  endforeach()
  add_custom_target(cuda_kernels DEPENDS ${cuda_objects})
endif()

set(PERIGEE_CUDA_KERNEL_TABLE ${CMAKE_CURRENT_BINARY_DIR}/cuda_kernel_table.c PARENT_SCOPE)
set(PERIGEE_CUDA_KERNEL_SOURCES ${cuda_sources} PARENT_SCOPE)
set(PERIGEE_CUDA_VENDOR_SOURCES ${vendor_sources} PARENT_SCOPE)
set(PERIGEE_CUDNN_SOURCES ${cudnn_sources} PARENT_SCOPE)
set(PERIGEE_CUDA_DTYPES ${cuda_dtypes} PARENT_SCOPE)
set(PERIGEE_CUDA_KERNEL_OBJECTS ${cuda_objects} PARENT_SCOPE)
foreach(dtype ${cuda_dtypes})
  set(code_${dtype} ${code_${dtype}} PARENT_SCOPE)
endforeach()
