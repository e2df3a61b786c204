# Cross-compiles for 64-bit Arm Linux with Debian's g++-aarch64-linux-gnu:
#
#   cmake -S . -B build/arm --toolchain cpp_runtime/cmake/aarch64-linux-gnu.cmake -DEDGE_SPEECH_PYTHON=OFF
#
# Where the machine is no Arm itself, ctest runs what was built under qemu-user-static.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)

# A Cortex-A76, the Raspberry Pi 5's, in instructions and in /proc/cpuinfo: qemu takes a file from its root when it is
# there, and what the host has there crashes onnxruntime. With SME, which qemu's default processor has, onnxruntime's
# int8 results are wrong on qemu 7.2.
if(NOT CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(emulator_root ${CMAKE_BINARY_DIR}/emulator_root)
  configure_file(${CMAKE_CURRENT_LIST_DIR}/aarch64-cpuinfo ${emulator_root}/proc/cpuinfo COPYONLY)
  file(CREATE_LINK /usr/aarch64-linux-gnu/lib ${emulator_root}/lib SYMBOLIC)
  set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -cpu cortex-a76 -L ${emulator_root})
endif()
