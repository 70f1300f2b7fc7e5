# SPDX-License-Identifier: ISC
# What survives a crash: whether the test would notice, and, where there is
# libfuse 3, a disk that loses what was not synced.
farblk_test(crash_oracle crash_oracle.c crash_client.c tagged.c)
pkg_check_modules(FUSE3 IMPORTED_TARGET fuse3>=3.10)
if(FUSE3_FOUND)
    add_executable(lossy_fs lossy_fs.c lossy_store.c)
    farblk_settings(lossy_fs)
    target_include_directories(lossy_fs PRIVATE ${PROJECT_SOURCE_DIR})
    target_link_libraries(lossy_fs PRIVATE PkgConfig::FUSE3 Threads::Threads)

    # Preloaded, and so without a sanitizer of its own.
    add_library(crash_shim MODULE crash_shim.c)
    target_compile_definitions(crash_shim PRIVATE _GNU_SOURCE)
    target_compile_options(crash_shim PRIVATE -Wall -Wextra)

    farblk_test(crash crash_ring.c crash_oracle.c crash_client.c lossy.c tagged.c)
    target_compile_definitions(test_crash PRIVATE
        FARBLK_TESTS_BUILD="${PROJECT_BINARY_DIR}")
    add_dependencies(test_crash farblkd lossy_fs crash_shim)
endif()
