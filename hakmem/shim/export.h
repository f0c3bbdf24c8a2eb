// Marks what libhakmem.so lets others see; all else is hidden.

#ifndef HAKMEM_SHIM_EXPORT_H_
#define HAKMEM_SHIM_EXPORT_H_

#define HAKMEM_EXPORT __attribute__((visibility("default")))

#endif  // HAKMEM_SHIM_EXPORT_H_
