# SPDX-License-Identifier: ISC
# Where things go: libraries, headers, the pkg-config file, the CMake package,
# programs, man pages, examples.  Included last, when all targets exist.
include(CMakePackageConfigHelpers)

install(TARGETS farblk LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS farblk_static ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/farblk DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
        FILES_MATCHING PATTERN "*.h")

# The programs find the library beside them, wherever the prefix is.
# Distributions switch that off with -DCMAKE_SKIP_INSTALL_RPATH=ON.
foreach(program farblk_tool farblkd)
    if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
        set(rpath "${CMAKE_INSTALL_LIBDIR}")
    else()
        set(rpath "$ORIGIN/../${CMAKE_INSTALL_LIBDIR}")
    endif()
    set_target_properties(${program} PROPERTIES INSTALL_RPATH "${rpath}")
    install(TARGETS ${program} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endforeach()

install(FILES man/farblk.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES man/farblk.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(FILES man/farblkd.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
install(FILES README.md SECURITY.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
# The service file is for a farblkd in /usr/bin: it is a document elsewhere.
install(FILES systemd/farblkd.service systemd/farblkd.conf
        DESTINATION ${CMAKE_INSTALL_DOCDIR}/systemd)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR}
        FILES_MATCHING PATTERN "*.c")

# What a static link needs beyond libfarblk.a.
set(farblk_private_requires "libprotobuf-c >= 1.4.1")
set(farblk_private_names "nng;mbedtls;mbedx509;mbedcrypto;protobuf-c;pthread")
if(FARBLK_URING)
    string(APPEND farblk_private_requires ", liburing >= 2.3")
    list(APPEND farblk_private_names uring)
endif()
if(FARBLK_NBD)
    string(APPEND farblk_private_requires ", libnbd >= 1.12")
    list(APPEND farblk_private_names nbd)
endif()

# Relative to the file itself where that is possible: then a tree that was
# installed or moved elsewhere still tells the truth.
set(farblk_pc_prefix "${CMAKE_INSTALL_PREFIX}")
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
    file(RELATIVE_PATH up "/p/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/p")
    string(REGEX REPLACE "/$" "" up "${up}")
    set(farblk_pc_prefix "\${pcfiledir}/${up}")
endif()
foreach(dir LIBDIR INCLUDEDIR)
    set(farblk_pc_${dir} "${CMAKE_INSTALL_${dir}}")
    if(NOT IS_ABSOLUTE "${farblk_pc_${dir}}")
        set(farblk_pc_${dir} "\${prefix}/${farblk_pc_${dir}}")
    endif()
endforeach()
configure_file(cmake/farblk.pc.in farblk.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/farblk.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/farblk)
configure_package_config_file(
    cmake/farblkConfig.cmake.in farblkConfig.cmake
    INSTALL_DESTINATION ${package_dir}
    PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR)
# While the major version is 0, a new minor version may change things.
write_basic_package_version_file(
    ${PROJECT_BINARY_DIR}/farblkConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/farblkConfig.cmake
              ${PROJECT_BINARY_DIR}/farblkConfigVersion.cmake
        DESTINATION ${package_dir})
