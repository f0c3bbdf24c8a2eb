#include "hakmem/l25/l25.h"

namespace hakmem::l25 {

constinit CachedPool cached_pool(locked_pool);

}  // namespace hakmem::l25
