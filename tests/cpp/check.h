// A test harness of one screen: TEST(name) { CHECK(condition); CHECK_EQ(a, b); CHECK_NEAR(a, b,
// tolerance); }
#pragma once

#include <cmath>
#include <iostream>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Register {
  Register(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline bool report(bool passed, const char* file, int line, const char* what) {
  if (!passed) {
    ++failures();
    std::cerr << file << ":" << line << ": failed: " << what << "\n";
  }
  return passed;
}

template <class A, class B>
void equal(const A& a, const B& b, const char* file, int line, const char* what) {
  if (!report(a == b, file, line, what)) std::cerr << "  left " << a << ", right " << b << "\n";
}

inline void near(double a, double b, double tolerance, const char* file, int line,
                 const char* what) {
  const bool close = std::abs(a - b) <= tolerance || a == b || (std::isnan(a) && std::isnan(b));
  if (!report(close, file, line, what)) {
    std::cerr << "  left " << a << ", right " << b << ", tolerance " << tolerance << "\n";
  }
}

}  // namespace check

#define TEST(name)                                            \
  static void test_##name();                                  \
  static check::Register register_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition) check::report(condition, __FILE__, __LINE__, #condition)
#define CHECK_EQ(a, b) check::equal(a, b, __FILE__, __LINE__, #a " == " #b)
#define CHECK_NEAR(a, b, tolerance) check::near(a, b, tolerance, __FILE__, __LINE__, #a " ~ " #b)
