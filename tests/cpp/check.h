// A test harness of one screen: TEST(name) { CHECK(condition); CHECK_EQ(a, b); CHECK_NEAR(a, b,
// tolerance); }
#pragma once

#include <cmath>
#include <cstring>
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

// Runs every TEST, or those whose names contain the first argument. Exit code 1 if any failed.
inline int run(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const Test& test : tests()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    const int before = failures();
    test.run();
    const bool ok = failures() == before;
    std::cout << (ok ? "ok      " : "FAILED  ") << test.name << std::endl;
    ++(ok ? passed : failed);
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                            \
  static void test_##name();                                  \
  static check::Register register_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition) check::report(condition, __FILE__, __LINE__, #condition)
#define CHECK_EQ(a, b) check::equal(a, b, __FILE__, __LINE__, #a " == " #b)
#define CHECK_NEAR(a, b, tolerance) check::near(a, b, tolerance, __FILE__, __LINE__, #a " ~ " #b)
