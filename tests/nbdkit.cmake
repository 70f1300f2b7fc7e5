# SPDX-License-Identifier: ISC
# The nbdkit plugin's tests, where it was built; elsewhere a test that says so.
if(NOT TARGET nbdkit_farblk)
    add_test(NAME nbdkit COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/skip.sh
             "no nbdkit plugin: nbdkit-plugin-dev is missing")
    farblk_test_properties(nbdkit)
    return()
endif()

# Its callbacks, over stand-ins for nbdkit and the library.
set(plugin_sources config.c plugin.c shared.c)
list(TRANSFORM plugin_sources PREPEND ${PROJECT_SOURCE_DIR}/nbdkit/)
foreach(name nbdkit_calls nbdkit_open)
    add_executable(test_${name} test_${name}.c nbdkit_hand.c ${plugin_sources})
    farblk_settings(test_${name})
    target_include_directories(test_${name} PRIVATE
        ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
    target_link_libraries(test_${name} PRIVATE
        PkgConfig::NBDKIT Threads::Threads ${CMOCKA_LIBRARY})
    add_test(NAME ${name} COMMAND test_${name})
    farblk_test_properties(${name})
endforeach()

# By nbdkit itself.  A sanitizer's runtime has to be there before the plugin.
set(preload "")
if(FARBLK_SANITIZE)
    set(runtime libasan.so)
    if(FARBLK_SANITIZE MATCHES thread)
        set(runtime libtsan.so)
    endif()
    execute_process(COMMAND ${CMAKE_C_COMPILER} -print-file-name=${runtime}
                    OUTPUT_VARIABLE preload OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(NOT IS_ABSOLUTE "${preload}")
        set(preload none)
    endif()
endif()
foreach(name nbdkit_qemu nbdkit_nbdcopy nbdkit_fio nbdkit_nbdfuse nbdkit_docs)
    farblk_script_test(${name})
    set_property(TEST ${name} APPEND PROPERTY
                 ENVIRONMENT "FARBLK_PRELOAD=${preload}")
endforeach()

# By libnbd, from C.
pkg_check_modules(TEST_LIBNBD IMPORTED_TARGET libnbd>=1.14)
if(TEST_LIBNBD_FOUND)
    farblk_test(nbdkit nbdkit_process.c)
    target_compile_definitions(test_nbdkit PRIVATE
        FARBLK_TESTS_BUILD="${PROJECT_BINARY_DIR}"
        FARBLK_TESTS_PRELOAD="${preload}")
    target_link_libraries(test_nbdkit PRIVATE PkgConfig::TEST_LIBNBD)
    add_dependencies(test_nbdkit farblkd nbdkit_farblk)
else()
    add_test(NAME nbdkit COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/skip.sh
             "libnbd-dev is missing")
    farblk_test_properties(nbdkit)
endif()
