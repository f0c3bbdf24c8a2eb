"""What libhakmem.so and libhakmem.a show: these names and no others."""

MALLOC_FAMILY = [
    "aligned_alloc",
    "calloc",
    "free",
    "free_aligned_sized",
    "free_sized",
    "malloc",
    "malloc_usable_size",
    "memalign",
    "posix_memalign",
    "pvalloc",
    "realloc",
    "reallocarray",
    "valloc",
]

# See glibc.cc.
GLIBC = [
    "__libc_calloc",
    "__libc_free",
    "__libc_mallinfo",
    "__libc_malloc",
    "__libc_mallopt",
    "__libc_memalign",
    "__libc_pvalloc",
    "__libc_realloc",
    "__libc_valloc",
    "__posix_memalign",
    "cfree",
    "mallinfo",
    "mallinfo2",
    "malloc_info",
    "malloc_stats",
    "malloc_trim",
    "mallopt",
]

# See allocx.cc, also for why the rest of jemalloc's names is not here. Names of
# other systems that Linux programs do not expect of their malloc, such as
# malloc_size, malloc_good_size, reallocf or freezero, are not here either: a
# preloaded library's would replace functions of that name in the program's own
# libraries, which may be anything.
ALLOCX = [
    "nallocx",
    "sdallocx",
]

# The nothrow forms of new are the C++ run time's: see new.cc.
OPERATORS = [
    # new, new[]; with an alignment
    "_Znwm",
    "_Znam",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    # delete: plain, sized, nothrow; each with an alignment
    "_ZdlPv",
    "_ZdlPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    # delete[]: likewise
    "_ZdaPv",
    "_ZdaPvm",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdaPvSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
]

NATIVE = [
    "hak_aligned_alloc",
    "hak_aligned_alloc_at",
    "hak_alloc",
    "hak_alloc_at",
    "hak_background_start",
    "hak_background_stop",
    "hak_calloc",
    "hak_calloc_at",
    "hak_config",
    "hak_free",
    "hak_free_at",
    "hak_observed",
    "hak_profile_write",
    "hak_realloc",
    "hak_realloc_at",
    "hak_release_memory",
    "hak_scope_begin",
    "hak_scope_end",
    "hak_site",
    "hak_site_stats_get",
    "hak_sites_check",
    "hak_sites_visit",
    "hak_stats_get",
    "hak_stats_json",
    "hak_usable_size",
]

# What libhakmem.so shows beside these: see dlopen.cc. In a program that is
# linked with libhakmem.a it would come in the way of what it is to call.
SHARED_EXPORTS = ["dlopen"]

EXPORTS = MALLOC_FAMILY + GLIBC + ALLOCX + OPERATORS + NATIVE

# What new.cc asks of the program's C++ run time, if there is one:
# std::get_new_handler() and std::__throw_bad_alloc(). And dlopen.cc of the C
# library.
WEAK_REFERENCES = [
    "_ZSt15get_new_handlerv",
    "_ZSt17__throw_bad_allocv",
    "dlsym",
]
