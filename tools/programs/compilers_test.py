"""gcc and clang, alone and with their linkers: the same objects and programs."""

import hashlib
import os
import subprocess
import unittest

from tools.programs import program_case

GCC = '/usr/bin/g++'
CLANG = '/usr/lib/llvm-19/bin/clang++'

# Headers that make compilers work, and templates instantiated many times.
SOURCE = '''
#include <algorithm>
#include <iostream>
#include <map>
#include <regex>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <variant>
#include <vector>

template <int N>
struct Node : Node<N - 1> {
  std::map<std::string, std::tuple<int, std::vector<Node<N - 1>>>> children;
  std::variant<int, std::string, std::unordered_map<int, std::string>> value;
  virtual int Depth() const { return N + Node<N - 1>::Depth(); }
};
template <>
struct Node<0> {
  virtual ~Node() = default;
  virtual int Depth() const { return 0; }
};

template <int... N>
int Use(std::integer_sequence<int, N...>) {
  std::ostringstream out;
  ((Node<N + 1>().children[std::to_string(N)] = {}, out << Node<N + 1>().Depth()), ...);
  std::string text = out.str();
  std::vector<std::string> parts;
  const std::regex digit("[PART-9]+");
  for (std::sregex_iterator i(text.begin(), text.end(), digit), end; i != end; ++i) {
    parts.push_back(i->str());
  }
  std::sort(parts.begin(), parts.end(), [](auto& a, auto& b) { return a.size() < b.size(); });
  for (const auto& part : parts) std::cout << part << " ";
  return static_cast<int>(parts.size());
}

int UsePART() { return Use(std::make_integer_sequence<int, 8>()); }
'''
PARTS = 2
MAIN = ''.join(f'int Use{part}();\n' for part in range(PARTS)) + '''
int main() { return ''' + ' + '.join(f'Use{part}()' for part in range(PARTS)) + ''' == 0; }
'''


class CompilersTest(program_case.ProgramCase):

  PROGRAMS = {GCC: 'g++', CLANG: 'clang-19'}

  def build(self, preload, compiler, flags):
    """Compiles all parts at once and links; [digest of each file made]."""
    directory = os.path.join(self.scratch, 'build')
    os.makedirs(directory, exist_ok=True)
    names = []
    for part in [*range(PARTS), 'main']:
      with open(os.path.join(directory, f'{part}.cc'), 'w') as file:
        file.write(MAIN if part == 'main'
                   else SOURCE.replace('PART', str(part)))
      names.append(f'{part}.o')
    env = self.environment(preload)

    def run(*command):
      result = subprocess.run([compiler, *flags, *command], cwd=directory,
                              env=env, capture_output=True, text=True)
      self.assertEqual((result.returncode, result.stderr), (0, ''))

    program_case.map_threads(
        lambda n: run('-std=c++17', '-c', names[n].replace('.o', '.cc'), '-o',
                      names[n]), len(names))
    run(*names, '-o', 'program')
    digests = []
    for name in names + ['program']:
      with open(os.path.join(directory, name), 'rb') as file:
        digests.append(f'{name} {hashlib.sha256(file.read()).hexdigest()}')
    digests.append(self.quiet(preload, [os.path.join(directory, 'program')]))
    return digests

  def check_compiler(self, compiler, *flags):
    self.check_in_use([compiler, '-dumpversion'])
    self.both(lambda preload: self.build(preload, compiler, flags))

  def test_gcc(self):
    self.check_compiler(GCC, '-O2', '-g')

  def test_gcc_over_all_files_in_parallel(self):
    self.check_compiler(GCC, '-O2', '-flto=2', '-frandom-seed=1')

  def test_clang(self):
    self.check_compiler(CLANG, '-O2', '-g')


if __name__ == '__main__':
  unittest.main()
