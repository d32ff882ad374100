/* Included before every mlx-c source (C++) and header (bindgen, C).
 *
 * mlx-c's own half.h knows the 16-bit types of macOS and ARM compilers only;
 * its include guard is set here, so that it adds nothing. mlx-rs calls the
 * accessors that the two HAS_ macros enable. */
#pragma once
#define MLX_HALF_H
#define HAS_FLOAT16
#define HAS_BFLOAT16

#ifdef __cplusplus

#include "mlx/types/half_types.h"
using mlx::core::bfloat16_t;
using mlx::core::float16_t;

/* g++ 12's library has no std::format. mlx-c uses it for error messages with
 * plain "{}" fields, nothing else. */
#include <version>
#ifdef __cpp_lib_format
#include <format>
#else
#include <sstream>
#include <string>
#include <string_view>
namespace std {
template <typename... Args>
string format(string_view text, const Args&... args) {
  ostringstream out;
  [[maybe_unused]] auto field = [&](const auto& value) {
    const auto at = text.find("{}");
    out << text.substr(0, at) << value;
    text.remove_prefix(at + 2);
  };
  (field(args), ...);
  out << text;
  return out.str();
}
} // namespace std
#endif

#else

#include <stdint.h>
typedef _Float16 float16_t;
typedef uint16_t bfloat16_t;

#endif
