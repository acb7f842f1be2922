-- Lets the longest lease that may run be shorter, where the last one of that length was granted no later than the caller knows of.
-- ARGV: run, the last grant that the caller has seen.
local mismatch = other(ARGV[1])
if mismatch then
  return mismatch
end
if number(book.longest_at) > number(ARGV[2]) then
  return { 'no', '0' }
end
book.longest, book.longest_at, book.next_longest = number(book.next_longest), number(book.grants), 0
close({ { 'longest', text(book.longest) } })
return { 'done', text(book.longest) }
