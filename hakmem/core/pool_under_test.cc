// Makes one pool the pool of a test program. pool.bzl compiles this for each
// variant of each crate, with the crate's header and the pool's name.

#include "hakmem/core/pool_test.h"
#include HAKMEM_POOL_HEADER

namespace hakmem {

TestPool& GetTestPool() {
  static constinit TestPoolOver pool(HAKMEM_POOL);
  return pool;
}

}  // namespace hakmem
