#include "tools/hakmem/utf8.h"

#include <cstdint>

namespace hakmem::tools {

size_t CharacterBytes(absl::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  size_t size = 0;
  uint32_t character = 0;
  uint32_t least = 0;
  if ((first & 0xe0) == 0xc0) {
    size = 2;
    character = first & 0x1f;
    least = 0x80;
  } else if ((first & 0xf0) == 0xe0) {
    size = 3;
    character = first & 0x0f;
    least = 0x800;
  } else if ((first & 0xf8) == 0xf0) {
    size = 4;
    character = first & 0x07;
    least = 0x10000;
  }
  if (size == 0 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
    character = character << 6 | (byte(i) & 0x3f);
  }
  const bool surrogate = character >= 0xd800 && character <= 0xdfff;
  return character < least || character > 0x10ffff || surrogate ? 0 : size;
}

}  // namespace hakmem::tools
