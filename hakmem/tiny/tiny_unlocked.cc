#include "hakmem/tiny/tiny.h"

namespace hakmem::tiny {

constinit LockedPool unlocked_pool(kGeometry, Mutex::Locking::kNone);

}  // namespace hakmem::tiny
