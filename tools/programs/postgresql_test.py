"""PostgreSQL: initdb, pgbench with many clients, and queries that use memory."""

import glob
import os
import shutil
import signal
import unittest

from tools.programs import program_case

BINARIES = '/usr/lib/postgresql/*/bin/'

QUERIES = '''
SELECT count(*), sum(bid), sum(abalance), md5(string_agg(aid || ':' || abalance, ',' ORDER BY aid)) FROM pgbench_accounts;
SELECT md5(string_agg(tid || ':' || tbalance, ',' ORDER BY tid)) FROM pgbench_tellers;
SELECT count(*), sum(delta) FROM pgbench_history;
SET work_mem = '64MB';
SELECT md5(string_agg(t, '' ORDER BY h)) FROM (
  SELECT md5(i::text) AS h, repeat(i::text, i % 20) AS t
  FROM generate_series(1, 200000) AS i) AS s;
SELECT k, count(*), min(a.aid), max(b.abalance) FROM pgbench_accounts AS a
  JOIN pgbench_accounts AS b ON a.aid = b.aid + 1, LATERAL (SELECT a.aid % 17 AS k) AS l
  GROUP BY k ORDER BY k;
SELECT md5(jsonb_agg(jsonb_build_object('n', i, 'x', repeat('y', i % 90)) ORDER BY i)::text)
  FROM generate_series(1, 20000) AS i;
DO $$ BEGIN FOR i IN 1..2000 LOOP
  BEGIN PERFORM 1 / (i % 10); EXCEPTION WHEN division_by_zero THEN NULL; END;
END LOOP; END $$;
CREATE INDEX ON pgbench_accounts (abalance, aid);
VACUUM (FULL, ANALYZE) pgbench_accounts;
SELECT regexp_replace(repeat('some words ', 20000), '(\\w+) (\\w+)', '\\2', 'g') = '' AS empty;
'''


class PostgresqlTest(program_case.ProgramCase):

  PROGRAMS = {BINARIES + 'initdb': 'postgresql-15',
              BINARIES + 'pgbench': 'postgresql-15',
              BINARIES + 'psql': 'postgresql-client-15',
              '/usr/bin/setpriv': 'util-linux'}

  def setUp(self):
    super().setUp()
    self.bin = os.path.dirname(sorted(glob.glob(BINARIES + 'pgbench'))[-1])
    self.user = []
    if os.geteuid() == 0:
      # It refuses to run as root.
      self.user = ['setpriv', '--reuid=nobody', '--regid=nogroup',
                   '--clear-groups']
      shutil.chown(self.scratch, 'nobody', 'nogroup')

  def tool(self, preload, name, *arguments, **kwargs):
    return self.quiet(
        preload, self.user + [os.path.join(self.bin, name), *arguments],
        **kwargs)

  def serve(self, preload):
    port = program_case.free_port()
    data = os.path.join(self.scratch, 'data')
    shutil.rmtree(data, ignore_errors=True)
    said = self.tool(preload, 'initdb', '-D', data, '-A', 'trust', '-U', 'postgres',
                     '-E', 'UTF8', '--locale=C', '--no-sync')
    # setpriv becomes postgres: the process is the server itself.
    command = self.user + [
        os.path.join(self.bin, 'postgres'), '-D', data, '-p', str(port),
        '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories=',
        '-c', 'fsync=off', '-c', 'max_parallel_workers_per_gather=2',
        '-c', 'min_parallel_table_scan_size=0', '-c', 'parallel_setup_cost=0',
        '-c', 'jit=on', '-c', 'jit_above_cost=0']
    to = ['-h', '127.0.0.1', '-p', str(port), '-U', 'postgres']
    # Its log is stderr; SIGINT disconnects clients and shuts down.
    with self.server(preload, command, port, stop=signal.SIGINT, stderr=None):
      self.tool(preload, 'pgbench', *to, '-i', '-q', '-s', '2', 'postgres')
      out = self.tool(preload, 'pgbench', *to, '-c', '8', '-j', '2', '-t',
                      '150', '--random-seed=1', '-n', '-M', 'prepared',
                      'postgres')
      self.assertIn('number of failed transactions: 0', out)
      said += self.tool(preload, 'psql', *to, '-X', '-v', 'ON_ERROR_STOP=1',
                        'postgres', input=QUERIES)
      dump = self.tool(preload, 'pg_dump', *to, '--schema-only', 'postgres')
    log = program_case.read(os.path.join(self.scratch, f'stderr-{port}'))
    self.assertNotIn('terminated by signal', log)
    self.assertIn('database system is shut down', log)
    # Newer releases of pg_dump frame the dump by a random key.
    return (said.splitlines() +
            [line for line in dump.splitlines() if 'restrict' not in line])

  def test_same_rows(self):
    self.both(self.serve)


if __name__ == '__main__':
  unittest.main()
