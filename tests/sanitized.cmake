# Specs under AddressSanitizer and UndefinedBehaviorSanitizer: the ops' on the CPU, and on CUDA's kernels by
# tests/cuda_on_cpu; training and commands on the latter. Products of bfloat16 are made in pairs there, on any processor
# (kernels/matmul/element.h).
execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=libasan.so OUTPUT_VARIABLE runtime
                OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT IS_ABSOLUTE "${runtime}")
  message(FATAL_ERROR "${CMAKE_C_COMPILER} has no libasan.so, which specs under the sanitizers load before luajit")
endif()

set(on_cpu LD_PRELOAD=${runtime})
set(on_cuda ${on_cpu} PERIGEE_CUDA_LIBRARY=${PROJECT_BINARY_DIR}/runtime/libperigee_cuda_on_cpu.so)
set(specs ${CMAKE_CURRENT_SOURCE_DIR}/lua)
perigee_spec(ops_spec ${specs}/ops_spec.lua ${on_cpu})
perigee_spec(ops_spec_on_cuda ${specs}/ops_spec.lua ${on_cuda} PERIGEE_TEST_DEVICES=cuda)
foreach(name cuda_spec cudnn_spec cuda_training_spec cuda_commands_spec)
  perigee_spec(${name} ${specs}/${name}.lua ${on_cuda})
endforeach()
