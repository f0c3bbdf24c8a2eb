#include "hakmem/l25/l25.h"

namespace hakmem::l25 {

constinit LockedPool unlocked_pool(kGeometry, Mutex::Locking::kNone);

}  // namespace hakmem::l25
