# SPDX-License-Identifier: ISC
# What the folders' CMakeLists.txt are written in.

# Compiler settings that every target of ours has.
function(farblk_settings target)
    target_compile_features(${target} PRIVATE c_std_11)
    target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
    target_compile_options(${target} PRIVATE
        -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes
        -Wmissing-prototypes -Wno-sign-conversion)
    if(FARBLK_WERROR)
        target_compile_options(${target} PRIVATE -Werror)
    endif()
    if(FARBLK_SANITIZE)
        target_compile_options(${target} PRIVATE
            -fsanitize=${FARBLK_SANITIZE} -fno-sanitize-recover=undefined
            -fno-omit-frame-pointer -g)
        target_link_options(${target} PUBLIC -fsanitize=${FARBLK_SANITIZE})
    endif()
endfunction()

# Sources of the library, in the folder that says it.
function(farblk_sources)
    foreach(source ${ARGN})
        target_sources(farblk_objects PRIVATE
                       ${CMAKE_CURRENT_SOURCE_DIR}/${source})
    endforeach()
endfunction()

# farblk_driver(NAME sources...): sources that end in `const struct driver
# driver_NAME`.  NAME appears in the table of drivers, in this order.
function(farblk_driver name)
    farblk_sources(${ARGN})
    set_property(GLOBAL APPEND PROPERTY FARBLK_DRIVERS ${name})
endfunction()

# Write the table of drivers that were named.
function(farblk_driver_table)
    get_property(names GLOBAL PROPERTY FARBLK_DRIVERS)
    set(declarations "")
    set(entries "")
    foreach(name ${names})
        string(APPEND declarations "extern const struct driver driver_${name};\n")
        string(APPEND entries "    &driver_${name},\n")
    endforeach()
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/drivers.c CONTENT
"/* Made by the build: the drivers, in the order of the build's list. */
#include \"core/driver.h\"

@declarations@
const struct driver *const drivers[] = {
@entries@    NULL,
};
" @ONLY)
    target_sources(farblk_objects PRIVATE ${PROJECT_BINARY_DIR}/drivers.c)
endfunction()

# A program of ours, by the shared library alone.
function(farblk_program name)
    add_executable(${name} ${ARGN})
    farblk_settings(${name})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} PRIVATE farblk)
    set_target_properties(${name} PROPERTIES
        RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
endfunction()

# farblk_test(NAME [sources...]): tests/test_NAME.c with the library's insides,
# run as ctest "NAME".
function(farblk_test name)
    farblk_test_program(${name} ${ARGN})
    add_test(NAME ${name} COMMAND test_${name})
    farblk_test_properties(${name})
endfunction()

# farblk_parted_test(NAME "PART;..." [SOURCE ...]): the same, one test NAME.PART
# for each of the arguments that its program takes, so that none takes too long.
function(farblk_parted_test name parts)
    farblk_test_program(${name} ${ARGN})
    foreach(part ${parts})
        add_test(NAME ${name}.${part} COMMAND test_${name} ${part})
        farblk_test_properties(${name}.${part})
    endforeach()
endfunction()

function(farblk_test_program name)
    add_executable(test_${name} test_${name}.c ${ARGN})
    farblk_settings(test_${name})
    target_include_directories(test_${name} PRIVATE
        ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR} ${NNG_INCLUDE_DIR})
    target_link_libraries(test_${name} PRIVATE
        farblk_test_support farblk_static ${farblk_libraries} ${CMOCKA_LIBRARY})
endfunction()

# farblk_script_test(NAME): tests/NAME.sh, exit status 77 skips.
function(farblk_script_test name)
    add_test(NAME ${name} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/${name}.sh)
    farblk_test_properties(${name})
endfunction()

function(farblk_test_properties name)
    set_tests_properties(${name} PROPERTIES TIMEOUT 1500 SKIP_RETURN_CODE 77
        ENVIRONMENT "FARBLK_BUILD=${PROJECT_BINARY_DIR};FARBLK_SOURCE=${PROJECT_SOURCE_DIR}")
endfunction()
