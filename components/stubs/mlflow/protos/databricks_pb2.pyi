INVALID_PARAMETER_VALUE: int
RESOURCE_ALREADY_EXISTS: int
RESOURCE_DOES_NOT_EXIST: int

class ErrorCode:
    @staticmethod
    def Name(number: int) -> str: ...
