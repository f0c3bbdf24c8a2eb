#include "hakmem/tiny/tiny.h"

namespace hakmem::tiny {

constinit LockedPool locked_pool(kGeometry);

}  // namespace hakmem::tiny
