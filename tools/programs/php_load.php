<?php
// Strings, arrays, regular expressions, JSON, XML and a database in memory, with
// the extensions that Debian loads as plug-ins. Prints a line for each; the
// argument is a seed.

mt_srand((int)($argv[1] ?? $_GET['seed'] ?? 1));

function words(int $count): array {
  $words = [];
  for ($i = 0; $i < $count; ++$i) {
    $words[] = str_repeat(chr(97 + mt_rand(0, 25)), mt_rand(1, 40)) . $i;
  }
  return $words;
}

$words = words(20000);
$table = [];
foreach ($words as $i => $word) {
  $table[substr($word, 0, 3)][] = [$i, strtoupper($word), ['length' => strlen($word)]];
  if ($i % 7 == 0) unset($table[substr($words[mt_rand(0, $i)], 0, 3)]);
}
ksort($table);
echo 'arrays ', md5(serialize($table)), "\n";

$text = json_encode($table);
$back = json_decode($text, true);
echo 'json ', strlen($text), ' ', $back == $table ? 'same' : 'different', "\n";

$replaced = preg_replace_callback('/([a-z])\1{3,}(\d+)/',
                                  fn($m) => $m[1] . $m[2] * 2,
                                  implode(' ', $words));
echo 'regular expressions ', md5($replaced), ' ',
     count(mb_split('\s', $replaced)), "\n";

$document = new DOMDocument();
$root = $document->appendChild($document->createElement('words'));
foreach (array_slice($words, 0, 3000) as $i => $word) {
  $element = $document->createElement('word', $word);
  $element->setAttribute('number', (string)$i);
  $root->appendChild($element);
  if ($i % 3 == 0) $root->removeChild($root->firstChild);
}
$xml = simplexml_load_string($document->saveXML());
echo 'xml ', count($xml->word), ' ', md5($document->saveXML()), "\n";

$db = new PDO('sqlite::memory:');
$db->exec('CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT, size INTEGER)');
$insert = $db->prepare('INSERT INTO t (word, size) VALUES (?, ?)');
$db->beginTransaction();
foreach ($words as $word) $insert->execute([$word, strlen($word)]);
$db->commit();
$rows = $db->query('SELECT size, count(*), max(word) FROM t GROUP BY size')
            ->fetchAll(PDO::FETCH_ASSOC);
echo 'database ', md5(serialize($rows)), "\n";

echo 'compression ', md5(gzuncompress(gzcompress($text, 6))), "\n";
