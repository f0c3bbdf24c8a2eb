#include "hakmem/l2/l2.h"

namespace hakmem::l2 {

constinit CachedPool cached_pool(locked_pool);

}  // namespace hakmem::l2
