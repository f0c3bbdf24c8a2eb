#include "hakmem/core/report.h"

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <functional>
#include <string>

#include "gtest/gtest.h"

namespace hakmem {
namespace {

std::string Written(const std::function<void()>& writer) {
  testing::internal::CaptureStderr();
  writer();
  return testing::internal::GetCapturedStderr();
}

TEST(ReportTest, ALineIsPutTogetherFromTextNumbersAndAddresses) {
  EXPECT_EQ(Written([] {
              Line line;
              line.Text("a ").Number(0).Text(" ").Number(UINT64_MAX);
              line.Text(" ").Address(nullptr).Text(" ");
              line.Address(reinterpret_cast<void*>(0x7f00deadbeef));
              line.Write();
            }),
            "hakmem: a 0 18446744073709551615 0x0 0x7f00deadbeef\n");
}

TEST(ReportTest, ALineThatIsTooLongIsCutAndStillEnds) {
  const std::string text = Written([] {
    Line line;
    line.Text(std::string(1000, 'x')).Number(12345);
    line.Write();
  });
  EXPECT_EQ(text, "hakmem: " + std::string(512 - 8 - 1, 'x') + "\n");
}

TEST(ReportTest, ErrnoIsKept) {
  errno = 77;
  const std::string text = Written([] {
    errno = 78;
    Warn("something about", "a thing", "nothing happens");
    EXPECT_EQ(errno, 78);
  });
  EXPECT_EQ(text,
            "hakmem: warning: something about a thing: nothing happens\n");
}

TEST(ReportDeathTest, DieWritesOneLineAndAborts) {
  EXPECT_EXIT(Die("wrong thing", reinterpret_cast<void*>(0x1230)),
              testing::KilledBySignal(SIGABRT),
              "^hakmem: wrong thing at 0x1230\n$");
}

}  // namespace
}  // namespace hakmem
