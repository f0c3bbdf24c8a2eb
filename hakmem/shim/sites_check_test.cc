// What --config=checked finds of wrong sites.

#include <stdlib.h>

#include "gtest/gtest.h"
#include "hakmem/shim/hakmem.h"

namespace {

TEST(SitesCheckDeathTest, AWrongSiteEndsTheProgram) {
  const uintptr_t site = hak_site("a.cc", 1, "");
  for (const size_t size : {10, 5000, 3000000}) {
    void* const block = hak_alloc_at(size, site);
    EXPECT_DEATH(hak_free_at(block, site + 1),
                 "^hakmem: wrong site given back with the block at 0x");
    EXPECT_DEATH(hak_free_at(block, hak_site("a.cc", 2, "")), "wrong site");
    hak_free_at(block, site);
  }
  void* const plain = malloc(10);
  EXPECT_DEATH(hak_free_at(plain, site), "wrong site");
  free(plain);
  hak_free_at(nullptr, site);
}

TEST(SitesCheckDeathTest, ASecondFreeIsSeenAtOnce) {
  void* const block = hak_alloc_at(10, 5);
  free(block);
  EXPECT_DEATH(free(block), "^hakmem: double free of the block at 0x");
  EXPECT_DEATH(hak_free_at(block, 5), "^hakmem: double free or use after free");
}

TEST(SitesCheckDeathTest, APointerIntoABlockIsSeen) {
  char* const block = static_cast<char*>(hak_alloc_at(100, 5));
  EXPECT_DEATH(free(block + 16), "^hakmem: pointer into the middle of a block");
  free(block);
}

}  // namespace
