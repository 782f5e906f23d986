"""What runs inside the sandbox: standard library only, because nothing else can be imported there."""
