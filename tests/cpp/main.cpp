// Runs every TEST, or those whose names contain the first argument. Exit code 1 if any failed.
#include <cstring>
#include <iostream>

#include "check.h"

int main(int argc, char** argv) {
  int passed = 0, failed = 0;
  for (const check::Test& test : check::tests()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    const int before = check::failures();
    test.run();
    const bool ok = check::failures() == before;
    std::cout << (ok ? "ok      " : "FAILED  ") << test.name << std::endl;
    ++(ok ? passed : failed);
  }
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed == 0 && passed > 0 ? 0 : 1;
}
