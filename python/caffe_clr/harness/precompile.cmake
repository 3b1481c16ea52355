# CMake includes this where Caffe's project begins. Nearly every file of C++
# reads most of caffe.hpp, which takes longer than what the file itself holds:
# here it is compiled once.

if(CMAKE_VERSION VERSION_LESS 3.19)
  return()  # no DEFER
endif()

function(precompile_headers)
  set(messages caffeproto)
  if(TARGET proto)
    set(messages proto)  # its name up to Caffe 1.0
  endif()
  set(header "$<$<COMPILE_LANGUAGE:CXX>:<caffe/caffe.hpp$<ANGLE-R>>")
  file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/precompiled.cpp" CONTENT "")
  add_library(precompiled OBJECT "${PROJECT_BINARY_DIR}/precompiled.cpp")
  target_compile_definitions(precompiled PRIVATE "$<TARGET_PROPERTY:caffe,INTERFACE_COMPILE_DEFINITIONS>")
  target_include_directories(precompiled PRIVATE "$<TARGET_PROPERTY:caffe,INCLUDE_DIRECTORIES>")
  target_precompile_headers(precompiled PRIVATE "${header}")
  add_dependencies(precompiled ${messages})
  # Nothing in these two is computed often; optimising them fully takes twice as long.
  target_compile_options(${messages} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:-O1>")
  if(TARGET pycaffe)
    target_compile_options(pycaffe PRIVATE -O1)
  endif()
  foreach(directory src/caffe src/caffe/test python tools examples)
    get_directory_property(targets DIRECTORY "${PROJECT_SOURCE_DIR}/${directory}" BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS targets)
      get_target_property(type ${target} TYPE)
      if(type MATCHES "EXECUTABLE|LIBRARY" AND NOT target STREQUAL messages)
        target_precompile_headers(${target} REUSE_FROM precompiled)
      endif()
    endforeach()
  endforeach()
endfunction()

cmake_language(DEFER CALL precompile_headers)
