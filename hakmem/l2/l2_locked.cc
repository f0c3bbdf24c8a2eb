#include "hakmem/l2/l2.h"

namespace hakmem::l2 {

constinit LockedPool locked_pool(kGeometry);

}  // namespace hakmem::l2
