#include "hakmem/tiny/tiny.h"

namespace hakmem::tiny {

constinit CachedPool cached_pool(locked_pool);

}  // namespace hakmem::tiny
