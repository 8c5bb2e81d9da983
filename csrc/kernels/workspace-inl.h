// A kernel describes its scratch once, as a struct whose constructor takes its arrays from a
// Workspace. Made on the caller's memory it can run; made on none it only measures.

class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    T* array = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    constexpr size_t line = 64;
    used_ += (static_cast<size_t>(count) * sizeof(T) + line - 1) / line * line;
    return array;
  }

  size_t bytes() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

template <class Kernel, class... Arguments>
inline Kernel make(void* memory, const Arguments&... arguments) {
  Workspace workspace(memory);
  return Kernel(workspace, arguments...);
}

// The same for many runs: the kernel itself lies at the beginning of the memory.
template <class Kernel>
constexpr size_t kept_bytes = (sizeof(Kernel) + 63) / 64 * 64;

template <class Kernel, class... Arguments>
inline void keep(void* memory, const Arguments&... arguments) {
  Workspace workspace(static_cast<char*>(memory) + kept_bytes<Kernel>);
  new (memory) Kernel(workspace, arguments...);
}

template <class Kernel, class... Arguments>
inline size_t measure(const Arguments&... arguments) {
  Workspace workspace(nullptr);
  Kernel kernel(workspace, arguments...);
  return workspace.bytes();
}
