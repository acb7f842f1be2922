-- Tells whether the book is still the one that the caller knows. ARGV: run.
return other(ARGV[1]) or { 'ok', text(number(book.log)) }
