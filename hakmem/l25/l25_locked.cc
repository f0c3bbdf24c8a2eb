#include "hakmem/l25/l25.h"

namespace hakmem::l25 {

constinit LockedPool locked_pool(kGeometry);

}  // namespace hakmem::l25
