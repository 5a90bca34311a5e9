/** One field of every record in a list, as a tuple: what unions of schemas are made of. */
export function each<const Records extends readonly object[], Key extends keyof Records[number]>(
  records: Records,
  key: Key,
): { readonly [I in keyof Records]: Records[I][Key & keyof Records[I]] } {
  return records.map((record) => record[key as keyof typeof record]) as never;
}
