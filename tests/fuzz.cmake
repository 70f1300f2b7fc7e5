# SPDX-License-Identifier: ISC
# Fuzz targets: each a plain test over its corpus and what is made of it, and
# with -DFARBLK_FUZZERS=ON a program fuzz_NAME for libFuzzer, or with
# -DFARBLK_FUZZERS=AFL for afl-fuzz (docs/testing.md).
set(fuzz_server_sources fuzz_server.c fuzz_frames.c
    fuzz_nng.c fuzz_aio.c fuzz_wait.c)
set(fuzz_server_changed 60)
set(fuzz_client_sources fuzz_client.c fuzz_frames.c
    fuzz_nng.c fuzz_aio.c fuzz_wait.c)
set(fuzz_client_changed 60)
set(fuzz_shm_sources fuzz_shm.c)
set(fuzz_shm_changed 400)
set(fuzz_shm_client_sources fuzz_shm_client.c)
set(fuzz_shm_client_changed 400)
set(fuzz_config_sources fuzz_config.c ${PROJECT_SOURCE_DIR}/server/config.c
    ${PROJECT_SOURCE_DIR}/server/config_access.c)
set(fuzz_config_changed 300)

function(farblk_fuzz_program name target)
    add_executable(${target} ${fuzz_${name}_sources} ${ARGN})
    farblk_settings(${target})
    target_include_directories(${target} PRIVATE
        ${PROJECT_SOURCE_DIR} ${NNG_INCLUDE_DIR})
    target_link_libraries(${target} PRIVATE
        farblk_static ${farblk_libraries})
    if(name STREQUAL config)
        target_link_options(${target} PRIVATE
            LINKER:--wrap=fopen,--wrap=fprintf)
    endif()
    if(name STREQUAL shm_client)
        target_link_options(${target} PRIVATE
            LINKER:--wrap=io_done,--wrap=io_failed
            LINKER:--wrap=session_lost,--wrap=device_reshape)
    endif()
    if("fuzz_nng.c" IN_LIST fuzz_${name}_sources)
        target_link_options(${target} PRIVATE
            LINKER:--wrap=pthread_cond_wait,--wrap=pthread_cond_timedwait
            LINKER:--wrap=clock_gettime)
    endif()
endfunction()

foreach(name server client shm shm_client config)
    farblk_fuzz_program(${name} test_fuzz_${name} fuzz_main.c)
    add_test(NAME fuzz_${name} COMMAND test_fuzz_${name}
        -m ${fuzz_${name}_changed} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name})
    farblk_test_properties(fuzz_${name})
    if(FARBLK_FUZZERS STREQUAL AFL)
        farblk_fuzz_program(${name} fuzz_${name} fuzz_main.c)
    elseif(FARBLK_FUZZERS)
        farblk_fuzz_program(${name} fuzz_${name})
        target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    endif()
endforeach()
