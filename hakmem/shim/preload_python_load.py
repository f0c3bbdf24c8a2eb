"""A load for the preload test: what Python does with memory and processes.

Prints figures that are the same on every run.
"""

import concurrent.futures
import ctypes
import gc
import hashlib
import json
import multiprocessing
import queue
import re
import subprocess
import sys
import threading
import zlib


def digest(text):
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def json_load():
  tree = {f'key {i}': {'list': list(range(i % 50)), 'text': 'x' * (i % 300),
                       'deep': [[[i]]], 'none': None}
          for i in range(5000)}
  text = json.dumps(tree, sort_keys=True)
  assert json.loads(text) == tree
  print('json', len(text), digest(text))


def thread_load():
  tasks, results = queue.Queue(), queue.Queue()

  def work():
    while True:
      item = tasks.get()
      if item is None:
        return
      data = bytes(range(256)) * (item % 40 + 1)
      results.put((item, zlib.crc32(zlib.decompress(zlib.compress(data)))))

  threads = [threading.Thread(target=work) for _ in range(8)]
  for thread in threads:
    thread.start()
  for item in range(4000):
    tasks.put(item)
  for _ in threads:
    tasks.put(None)
  for thread in threads:
    thread.join()
  print('threads', digest(str(sorted(results.queue))))
  for _ in range(300):
    thread = threading.Thread(target=lambda: [object() for _ in range(100)])
    thread.start()
    thread.join()


def subprocess_load():
  outputs = []
  for i in range(10):
    result = subprocess.run([sys.executable, '-c', f'print("x" * {i * 1000})'],
                            capture_output=True, text=True, check=True)
    assert not result.stderr, result.stderr
    outputs.append(result.stdout)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    outputs += pool.map(
        lambda i: subprocess.check_output(['/bin/echo', str(i)], text=True),
        range(40))
  print('subprocess', digest(''.join(outputs)))


def square(i):
  return sum(j * j for j in [i] * 100), 'y' * (i % 1000)


def multiprocessing_load():
  for method in ['fork', 'spawn']:
    with multiprocessing.get_context(method).Pool(3) as pool:
      print('multiprocessing', method, digest(str(pool.map(square, range(1500)))))


def ctypes_load():
  libc = ctypes.CDLL(None)
  libc.malloc.restype = ctypes.c_void_p
  libc.realloc.restype = ctypes.c_void_p
  total = 0
  for size in [0, 1, 100, 5000, 100000, 5000000]:
    block = libc.malloc(ctypes.c_size_t(size))
    block = libc.realloc(ctypes.c_void_p(block), ctypes.c_size_t(2 * size + 1))
    ctypes.memset(block, 1, 2 * size + 1)
    total += sum(ctypes.string_at(block, min(size, 1000)))
    libc.free(ctypes.c_void_p(block))
  callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int),
                              ctypes.POINTER(ctypes.c_int))
  numbers = (ctypes.c_int * 2000)(*[(i * 7919) % 2003 for i in range(2000)])
  libc.qsort(numbers, 2000, ctypes.sizeof(ctypes.c_int),
             callback(lambda a, b: a[0] - b[0]))
  print('ctypes', total, list(numbers) == sorted(numbers))


def text_load():
  words = re.compile(r'(\w+?)(\d+)|(?P<rest>[^\w]+)')
  text = ' '.join(f'word{i}' for i in range(30000))
  print('re', sum(1 for _ in words.finditer(text)), digest(words.sub(r'\2', text)))
  big = [('%d' % i) * 50 for i in range(100000)]
  data = ''.join(big).encode()
  packed = zlib.compress(data, 6)
  print('zlib', len(data), zlib.decompress(packed) == data, zlib.adler32(data))


def main():
  for load in [json_load, thread_load, subprocess_load, multiprocessing_load,
               ctypes_load, text_load]:
    load()
    gc.collect()


if __name__ == '__main__':
  main()
