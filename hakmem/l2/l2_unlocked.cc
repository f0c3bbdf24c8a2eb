#include "hakmem/l2/l2.h"

namespace hakmem::l2 {

constinit LockedPool unlocked_pool(kGeometry, Mutex::Locking::kNone);

}  // namespace hakmem::l2
