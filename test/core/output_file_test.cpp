#include "core/output_file.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>
#include <vector>

#include "core/buffer.h"
#include "core/mapped_file.h"
#include "test/core/unprivileged.h"
#include "test/support.h"

TEST_SUITE_BEGIN("core");

namespace rwkv::test {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

mode_t mode_of(const std::string& path) {
  struct stat status {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  return status.st_mode & 07777;
}

void write_whole(const std::string& path, std::string_view text, uint64_t expected_size = 0) {
  OutputFile file(path, expected_size);
  file.write(bytes_of(text));
  file.commit();
}

using Names = std::vector<std::string>;

/// A directory with a file `old` that holds "old bytes".
struct Fixture {
  TemporaryDirectory directory;
  std::string old = directory / "old";

  Fixture() { write_file(old, "old bytes"); }
  [[nodiscard]] Names names() const { return names_in(directory / ""); }
  [[nodiscard]] static std::string refusal(const std::string& path, uint64_t expected_size = 0) {
    return error_of([&] { OutputFile(path, expected_size); });
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "output file: appears when it is committed, not before") {
  std::string path = directory / "new";
  {
    OutputFile file(path);
    file.write(bytes_of("one "));
    file.write(bytes_of("two"));
    CHECK(file.position() == 7);
    CHECK_FALSE(std::filesystem::exists(path));
    REQUIRE(names().size() == 2);
    CHECK(names()[0].starts_with("new."));
    CHECK(names()[0].ends_with(".partial"));
    file.commit();
    CHECK(read_file(path) == "one two");
  }
  CHECK(names() == Names{"new", "old"});
}

TEST_CASE_FIXTURE(
    Fixture, "output file: the old file stays until the new one is complete, and for ever if it never is") {
  {
    OutputFile file(old);
    file.write(bytes_of("new"));
    CHECK(read_file(old) == "old bytes");
  }
  CHECK(read_file(old) == "old bytes");
  CHECK(names() == Names{"old"});
  write_whole(old, "new");
  CHECK(read_file(old) == "new");
  CHECK(names() == Names{"old"});
}

TEST_CASE_FIXTURE(Fixture, "output file: a header can be written last; the position does not move") {
  OutputFile file(old);
  file.write(bytes_of("......"));
  file.write(bytes_of("data"));
  file.write_at(0, bytes_of("header"));
  CHECK(file.position() == 10);
  file.write(bytes_of(" more"));
  file.write_at(20, bytes_of("end"));
  file.commit();
  CHECK(read_file(old) == std::string("headerdata more\0\0\0\0\0end", 23));
}

TEST_CASE_FIXTURE(Fixture,
                  "output file: reserved space beyond what was written is given back, and may be exceeded") {
  write_whole(old, "short", 1'000'000);
  CHECK(read_file(old) == "short");
  write_whole(old, std::string(10'000, 'x'), 100);
  CHECK(read_file(old) == std::string(10'000, 'x'));
  write_whole(old, "", 100);
  CHECK(read_file(old).empty());
  OutputFile file(old, 100);
  file.write(bytes_of("......data"));
  file.write_at(0, bytes_of("header"));
  file.commit();
  CHECK(read_file(old) == "headerdata");
}

TEST_CASE_FIXTURE(Fixture, "output file: what was reserved and not written reads as zeros") {
  OutputFile file(directory / "new", 4096);
  file.write_at(4000, bytes_of("data"));
  std::string partial = read_file(directory / names()[0]);
  REQUIRE(partial.size() >= 4004);
  CHECK(partial.substr(0, 4000) == std::string(4000, '\0'));
}

TEST_CASE_FIXTURE(Fixture, "output file: only regular files are replaced") {
  CHECK(refusal(directory / "") == directory / "" + ": is not the name of a file; give one to write to");
  std::filesystem::create_directory(directory / "folder");
  std::string path = directory / "folder";
  CHECK(refusal(path) == path + ": is a directory; give the name of a file to write");
  path = directory / "pipe";
  REQUIRE(mkfifo(path.c_str(), 0600) == 0);
  std::string ending = ": is a pipe, device or socket, not a file to replace; give the name of a file";
  CHECK(refusal(path) == path + ending);
  CHECK(refusal("/dev/full") == "/dev/full" + ending);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  path = "/proc/self/fd/" + std::to_string(ends[1]);
  CHECK(refusal(path) == path + ending);
  close(ends[0]);
  close(ends[1]);
  CHECK(refusal("").ends_with(": is not the name of a file; give one to write to"));
  path = old + "/below";
  CHECK(refusal(path) == path + ": cannot create the file: Not a directory");
  path = directory / "missing/new";
  CHECK(refusal(path) == path + ": cannot create the file: no such directory; create it first");
  CHECK(names() == Names{"folder", "old", "pipe"});
}

TEST_CASE_FIXTURE(Fixture, "output file: permissions are respected") {
  Unprivileged unprivileged;
  REQUIRE(chmod(old.c_str(), 0444) == 0);
  CHECK(refusal(old) ==
        old + ": is write-protected and will not be replaced; choose another name or remove it first");
  std::string folder = directory / "folder";
  REQUIRE(mkdir(folder.c_str(), 0555) == 0);
  std::string path = folder + "/new";
  CHECK(refusal(path) ==
        path +
            ": cannot create the file: no permission; write to another directory, or change the "
            "permissions of this one");
  REQUIRE(chmod(folder.c_str(), 0300) == 0);  // writable, but not to be listed or flushed
  write_whole(path, "bytes");
  REQUIRE(chmod(folder.c_str(), 0700) == 0);
  CHECK(read_file(path) == "bytes");
}

TEST_CASE_FIXTURE(Fixture,
                  "output file: a replaced file keeps its permissions, a new one has the usual ones") {
  for (mode_t mode : {0600, 0640, 0755}) {
    REQUIRE(chmod(old.c_str(), mode) == 0);
    OutputFile file(old);
    file.write(bytes_of("secret"));
    CHECK(mode_of(directory / names()[1]) == mode);  // from the start: the bytes may be secret
    file.commit();
    CHECK(mode_of(old) == mode);
  }
  mode_t mask = umask(027);
  write_whole(directory / "new", "bytes");
  umask(mask);
  CHECK(mode_of(directory / "new") == 0640);
}

TEST_CASE_FIXTURE(Fixture, "output file: a symbolic link stays, and the file that it leads to is replaced") {
  std::filesystem::create_directory(directory / "folder");
  std::filesystem::create_symlink("../old", directory / "folder/link");
  std::filesystem::create_symlink("folder/link", directory / "second");
  write_whole(directory / "second", "new");
  CHECK(std::filesystem::is_symlink(directory / "second"));
  CHECK(std::filesystem::is_symlink(directory / "folder/link"));
  CHECK(read_file(old) == "new");
  std::filesystem::create_symlink(directory / "folder/created", directory / "dangling");
  write_whole(directory / "dangling", "created");
  CHECK(std::filesystem::is_symlink(directory / "dangling"));
  CHECK(read_file(directory / "folder/created") == "created");
  std::filesystem::create_symlink("circle", directory / "circle");
  CHECK(refusal(directory / "circle")
            .starts_with(directory / "circle" + ": cannot follow the symbolic link: "));
  std::filesystem::create_symlink("folder", directory / "to-folder");
  CHECK(refusal(directory / "to-folder").ends_with(": is a directory; give the name of a file to write"));
}

TEST_CASE_FIXTURE(Fixture, "output file: names of any length and alphabet") {
  for (const std::string& name : {std::string(255, 'x'), std::string("a b%s,c.rwkv"), [] {
                                    std::string chinese;
                                    for (int i = 0; i < 85; i++) chinese += "\xe4\xb8\xad";
                                    return chinese;
                                  }()}) {
    write_whole(directory / name, name);
    CHECK(read_file(directory / name) == name);
  }
  CHECK(names().size() == 4);
  CHECK(refusal(directory / std::string(256, 'x')).ends_with("File name too long"));
}

TEST_CASE_FIXTURE(Fixture, "output file: a path without directory is relative to the current one") {
  std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory / "");
  write_whole("new", "bytes", 100);
  std::filesystem::current_path(before);
  CHECK(read_file(directory / "new") == "bytes");
  CHECK(names() == Names{"new", "old"});
}

TEST_CASE_FIXTURE(Fixture, "output file: more than the disk has is refused before anything is written") {
  struct statvfs disk {};
  REQUIRE(statvfs(old.c_str(), &disk) == 0);
  uint64_t too_much = disk.f_bfree * disk.f_frsize + (uint64_t{1} << 40);
  CHECK(refusal(old, too_much)
            .starts_with(old + ": needs " + std::to_string(too_much) + " bytes, but the disk has only "));
  CHECK(refusal(old, UINT64_MAX)
            .starts_with(old + ": cannot write 18446744073709551615 bytes: the file is too large"));
  CHECK(names() == Names{"old"});
  CHECK(read_file(old) == "old bytes");
}

TEST_CASE_FIXTURE(Fixture, "output file: pieces of any size, in order and at offsets, around huge pages") {
  constexpr uint64_t sizes[] = {
      0, 1, 4095, 100'000, huge_page - 1, huge_page, huge_page + 1, 3 * huge_page + 5};
  uint64_t random = 1;
  auto next = [&random](uint64_t count) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return (random >> 33) % count;
  };
  for (int i = 0; i < 10; i++) {
    std::string expected;
    OutputFile file(old);
    for (int k = 0; k < 6; k++) {
      const std::string piece(sizes[next(std::size(sizes))], static_cast<char>('a' + k));
      const bool in_order = next(3) != 0;
      const uint64_t at = in_order ? file.position() : next(expected.size() + 1);
      in_order ? file.write(bytes_of(piece)) : file.write_at(at, bytes_of(piece));
      if (!piece.empty() && expected.size() < at + piece.size()) expected.resize(at + piece.size(), '\0');
      expected.replace(at, piece.size(), piece);
    }
    file.commit();
    CHECK(read_file(old) == expected);
  }
}

TEST_CASE_FIXTURE(Fixture, "output file: offsets beyond any file are errors") {
  OutputFile file(old);
  CHECK(error_of([&] { file.write_at(UINT64_MAX, bytes_of("xx")); }).starts_with(old + ": "));
  CHECK(error_of([&] { file.write_at(INT64_MAX, bytes_of("xx")); }).starts_with(old + ": cannot write "));
  file.commit();
  CHECK(read_file(old).empty());
}

TEST_CASE_FIXTURE(Fixture, "output file: the limit of the process on file sizes is an Error, not a signal") {
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  rlimit small = {.rlim_cur = 1000, .rlim_max = before.rlim_max};
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  std::string reserving = refusal(directory / "new", 1001), writing;
  {
    OutputFile file(old, 1000);
    file.write(bytes_of(std::string(999, 'x')));
    writing = error_of([&] { file.write(bytes_of("xx")); });
  }
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::string ending =
      ": cannot write 1001 bytes: the file is too large for this file system or for the limit of the process "
      "(ulimit -f)";
  CHECK(reserving == directory / "new" + ending);
  CHECK(writing == old + ending);
  CHECK(names() == Names{"old"});
  CHECK(read_file(old) == "old bytes");
}

TEST_CASE_FIXTURE(Fixture, "output file: a killed process leaves the old file and at most a partial one") {
  pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    OutputFile file(old, 100);
    file.write(bytes_of("new"));
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(read_file(old) == "old bytes");
  REQUIRE(names().size() == 2);
  CHECK(names()[1].ends_with(".partial"));
}

TEST_CASE_FIXTURE(Fixture,
                  "output file: a signal handler can remove what is unfinished and leaves what is complete") {
  OutputFile first(directory / "first"), second(old);
  std::optional<OutputFile> third(std::in_place, directory / "third");
  third->commit();
  third.reset();
  CHECK(names().size() == 4);
  OutputFile::remove_unfinished();
  CHECK(names() == Names{"old", "third"});
  second.write(bytes_of("late"));
  CHECK(error_of([&] { second.commit(); }).starts_with(old + ": cannot rename the file: "));
  CHECK(read_file(old) == "old bytes");
}

TEST_CASE_FIXTURE(Fixture,
                  "output file: more at once than a signal handler knows of are written all the same") {
  std::vector<std::unique_ptr<OutputFile>> files;
  for (int i = 0; i < 40; i++) {
    files.push_back(std::make_unique<OutputFile>(directory / std::to_string(i)));
    files.back()->write(bytes_of("bytes"));
  }
  for (auto& file : files) file->commit();
  files.clear();
  CHECK(names().size() == 41);
  OutputFile again(directory / "again");  // the slots are free again
  OutputFile::remove_unfinished();
  CHECK(names().size() == 41);
}

TEST_CASE_FIXTURE(Fixture, "output file: two for one name do not mix; the last to commit stays") {
  OutputFile first(old), second(old);
  first.write(bytes_of("first"));
  second.write(bytes_of("the second"));
  second.commit();
  CHECK(read_file(old) == "the second");
  first.commit();
  CHECK(read_file(old) == "first");
  CHECK(names() == Names{"old"});
}

TEST_CASE_FIXTURE(Fixture, "output file: a mapped file can be rewritten from its own bytes") {
  MappedFile input = MappedFile::open(old);
  OutputFile file(old);
  file.write(bytes_of("new from "));
  file.write(input.bytes());
  file.commit();
  CHECK(read_file(old) == "new from old bytes");
  CHECK(input.bytes().size() == 9);
  CHECK(input.bytes()[0] == std::byte{'o'});
}

}  // namespace rwkv::test

TEST_SUITE_END();
